"""The live page in headless Chromium: first paint, the work of an update, memory over an hour.

    python -m simulation.benchmark.page [--json] [--quick]

The files of a run of 64 sites are written and served as `wardround-sim page` does, while a browser
looks at them. `paint_ms` is the first contentful paint, `read_s` until the page shows all of the
log, or the result of a run that is finished.

A live run is then told a round a second: `update_ms` is what the browser's main thread works for
such a round, with its curves and its log (scripts, layout, paint), in the thread's own processor
time, so that other work on the machine does not count; `longest_ms` is its longest task by the
clock (0: none of 50 ms). Then come the rounds that an hour has at a round a second, AT_ONCE more
as soon as the page shows those before, so that the hour takes minutes. `heap_MB` is the JavaScript
heap before that hour, `mid_MB` and `end_MB` in its middle and at its end, each after a collection
of garbage and with no request under way. A finished run stands still, so only `heap_MB` is measured
of it.

Needs Playwright and Chromium; without them one row says so.
"""

import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from simulation.benchmark.page_run import begin_run, end_run, tell_rounds
from simulation.benchmark.table import Row, begin_with_environment, run_benchmark

ROUNDS, TOLD, HOUR = 10_000, 40, 3600
QUICK_ROUNDS, QUICK_TOLD, QUICK_HOUR = 200, 5, 120
AT_ONCE = 20
ROUND_S, SHOWN_WITHIN_S, QUIET_S = 1.0, 180.0, 5.0
MARK_TASKS = """
window.longest = 0;
new PerformanceObserver((list) => {
  for (const task of list.getEntries()) window.longest = Math.max(window.longest, task.duration);
}).observe({ type: "longtask" });
"""
PAINTED = "performance.getEntriesByName('first-contentful-paint')[0].startTime"


def main() -> None:
    """Measure and print the rows."""
    begin_with_environment()
    run_benchmark("page", "the live page in headless Chromium", measure, sys.argv[1:])


def measure(quick: bool) -> list[Row]:
    """Return a row of a live run and one of a finished run, or one that says why there is none."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None or find_spec("playwright") is None:
        missing = "Chromium" if chromium is None else "Playwright"
        return [{"name": "page", "why_not": f"{missing} is not installed here"}]
    sizes = (QUICK_ROUNDS, QUICK_TOLD, QUICK_HOUR) if quick else (ROUNDS, TOLD, HOUR)
    rounds = sizes[0]
    with TemporaryDirectory() as name:
        folder = Path(name)
        for run in ("live", "finished"):
            begin_run(folder / run, sum(sizes))
            tell_rounds(folder / run, 1, rounds, sum(sizes))
        end_run(folder / "finished", rounds, sum(sizes))
        with _served(folder) as url, _browser(chromium) as browser:
            return [
                {"name": f"live, {rounds} rounds", **_live(browser, url, folder, sizes)},
                {"name": f"finished, {rounds} rounds", **_finished(browser, url)},
            ]


@contextmanager
def _served(folder: Path) -> Iterator[str]:
    command = [sys.executable, "-m", "simulation.cli", "page", str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None  # it was asked for
            server.stdout.readline()
            yield server.stdout.readline().strip()
        finally:
            server.terminate()


@contextmanager
def _browser(chromium: str) -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        try:
            yield browser
        finally:
            browser.close()


def _opened(browser: Any, url: str, run: str, shown: str) -> tuple[Any, float]:  # noqa: ANN401
    """Return the page of a run, and how many seconds it took until it showed this."""
    page = browser.new_page()
    page.add_init_script(MARK_TASKS)
    page.goto(url)
    page.get_by_role("link", name=run).click()
    began = time.monotonic()
    _until_shown(page, shown)
    return page, time.monotonic() - began


def _until_shown(page: Any, text: str) -> None:  # noqa: ANN401 - Playwright's
    holds = "text => document.getElementById('state')?.textContent.includes(text)"
    page.wait_for_function(holds, arg=text, timeout=1000 * SHOWN_WITHIN_S)


def _live(browser: Any, url: str, folder: Path, sizes: tuple[int, int, int]) -> Row:  # noqa: ANN401
    rounds, told, hour = sizes
    page, read_s = _opened(browser, url, "live", f"Round {rounds} of")
    page.wait_for_timeout(1000 * QUIET_S)
    paint_ms = page.evaluate(PAINTED)
    session = page.context.new_cdp_session(page)
    session.send("Performance.enable", {"timeDomain": "threadTicks"})
    page.evaluate("window.longest = 0")
    before = _worked_s(session)
    for number in range(rounds + 1, rounds + told + 1):
        tell_rounds(folder / "live", number, number, sum(sizes))
        page.wait_for_timeout(1000 * ROUND_S)
    update_ms = 1000 * (_worked_s(session) - before) / told
    longest_ms = page.evaluate("window.longest")
    page.wait_for_timeout(1000 * QUIET_S)
    heaps = [_heap_mb(session)]
    for done in range(rounds + told, sum(sizes), AT_ONCE):
        tell_rounds(folder / "live", done + 1, done + AT_ONCE, sum(sizes))
        _until_shown(page, f"Round {done + AT_ONCE} of")
        if done + AT_ONCE in (rounds + told + hour // 2, sum(sizes)):
            # What it asked for meanwhile, its curves, would be counted while it comes.
            page.wait_for_timeout(1000 * QUIET_S)
            heaps.append(_heap_mb(session))
    page.close()
    return {
        "paint_ms": paint_ms,
        "read_s": read_s,
        "update_ms": update_ms,
        "longest_ms": longest_ms,
        **dict(zip(("heap_MB", "mid_MB", "end_MB"), heaps, strict=True)),
    }


def _finished(browser: Any, url: str) -> Row:  # noqa: ANN401 - Playwright's
    page, read_s = _opened(browser, url, "finished", "Completed.")
    page.wait_for_timeout(1000 * QUIET_S)
    paint_ms = page.evaluate(PAINTED)
    heap_mb = _heap_mb(page.context.new_cdp_session(page))
    nothing = dict.fromkeys(("update_ms", "longest_ms"), "")
    later = dict.fromkeys(("mid_MB", "end_MB"), "")
    return {"paint_ms": paint_ms, "read_s": read_s, **nothing, "heap_MB": heap_mb, **later}


def _worked_s(session: Any) -> float:  # noqa: ANN401 - Playwright's
    found = session.send("Performance.getMetrics")["metrics"]
    return {metric["name"]: float(metric["value"]) for metric in found}["TaskDuration"]


def _heap_mb(session: Any) -> float:  # noqa: ANN401 - Playwright's
    session.send("HeapProfiler.collectGarbage")
    return float(session.send("Runtime.getHeapUsage")["usedSize"]) / 1e6


if __name__ == "__main__":
    main()
