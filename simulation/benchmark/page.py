"""The live page in headless Chromium: first paint, the work of an update, and its memory.

    python -m simulation.benchmark.page [--json] [--quick]

A log of a run of 64 sites is written, the page served as `wardround-sim page` does, and a round a
second is told while a browser looks at it. `paint_ms` is the first contentful paint, `read_s` until
the page shows all of the log. `update_ms` is what the browser's main thread works for a round that
was told, with its curves and its log (scripts, layout, paint); `longest_ms` is its longest task
(0: none of 50 ms). `heap_MB` is
before the told rounds and after, garbage collected. Needs Playwright and Chromium.
"""

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from simulation.benchmark.table import Row, begin_with_environment, run_benchmark

SITES, ROUNDS, TOLD = 64, 10_000, 40
QUICK_ROUNDS, QUICK_TOLD = 200, 5
ROUND_S, READ_WITHIN_S = 1.0, 120.0
MARK_TASKS = """
window.longest = 0;
new PerformanceObserver((list) => {
  for (const task of list.getEntries()) window.longest = Math.max(window.longest, task.duration);
}).observe({ type: "longtask" });
"""


def main() -> None:
    """Measure and print the rows."""
    begin_with_environment()
    run_benchmark("page", "the live page in headless Chromium", measure, sys.argv[1:])


def measure(quick: bool) -> list[Row]:
    """Return one row."""
    rounds, told = (QUICK_ROUNDS, QUICK_TOLD) if quick else (ROUNDS, TOLD)
    with TemporaryDirectory() as folder:
        run = Path(folder) / "long"
        run.mkdir()
        (run / "run.json").write_text("{}")
        log = run / "events.jsonl"
        with log.open("w") as file:
            file.writelines(events(1, rounds, rounds + told))
        command = [sys.executable, "-m", "simulation.cli", "page", folder]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
            try:
                assert server.stdout is not None  # it was asked for
                server.stdout.readline()
                url = server.stdout.readline().strip()
                return [
                    {"name": f"{SITES} sites, {rounds} rounds", **_seen(url, log, rounds, told)}
                ]
            finally:
                server.terminate()


def events(first: int, last: int, planned: int) -> Iterator[str]:
    """Yield the lines of a log as server/run.py tells them, of these rounds."""
    sites = [f"hospital-{number:02d}" for number in range(SITES)]

    def line(event: str, **fields: Any) -> str:  # noqa: ANN401 - JSON
        return json.dumps({"time": round(time.time(), 3), "event": event, **fields}) + "\n"

    if first == 1:
        yield line("start", rounds=planned, done=0)
        yield line("enrolled", sites=sites, absent={})
    for number in range(first, last + 1):
        yield line("round", round=number, of=planned, sites=sites)
        for site in sites:
            yield line("reply", site=site, round=number, why=None)
        grown = 1 - 0.8 * 0.9995**number
        values = {site: grown - (7 * i + number) % 13 / 100 for i, site in enumerate(sites)}
        yield line("measured", round=number - 1, metric="dice", values=values)
        part = {"seconds": 1.5, "bytes_sent": 9_000_000, "bytes_received": 9_000_000}
        yield line(
            "round done",
            round=number,
            seconds=2.0,
            sites={site: {**part, "train_loss": 1 - values[site]} for site in sites},
            missing={},
            epsilon=dict.fromkeys(sites, 8 * (number / planned) ** 0.5),
        )


def _seen(url: str, log: Path, rounds: int, told: int) -> dict[str, float]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"]
        )
        page = browser.new_page()
        page.add_init_script(MARK_TASKS)
        page.goto(url)
        page.get_by_role("link", name="long").click()
        began = time.monotonic()
        everything = f"() => document.getElementById('state').textContent.includes('Round {rounds} "
        page.wait_for_function(f"{everything}of')", timeout=1000 * READ_WITHIN_S)
        read_s = time.monotonic() - began
        paint_ms = page.evaluate(
            "performance.getEntriesByName('first-contentful-paint')[0].startTime"
        )
        page.wait_for_timeout(5000)
        session = page.context.new_cdp_session(page)
        session.send("Performance.enable")
        before, heap_before = _metrics(session), _heap_mb(session)
        page.evaluate("window.longest = 0")
        before = _metrics(session)
        for number in range(rounds + 1, rounds + told + 1):
            with log.open("a") as file:
                file.writelines(events(number, number, rounds + told))
            page.wait_for_timeout(1000 * ROUND_S)
        after = _metrics(session)
        longest_ms = page.evaluate("window.longest")
        heap_after = _heap_mb(session)
        browser.close()
    return {
        "paint_ms": paint_ms,
        "read_s": read_s,
        "update_ms": 1000 * (after["TaskDuration"] - before["TaskDuration"]) / told,
        "longest_ms": longest_ms,
        "heap_MB": heap_before,
        "heap_MB after": heap_after,
    }


def _metrics(session: Any) -> dict[str, float]:  # noqa: ANN401 - Playwright's
    found = session.send("Performance.getMetrics")["metrics"]
    return {metric["name"]: metric["value"] for metric in found}


def _heap_mb(session: Any) -> float:  # noqa: ANN401 - Playwright's
    session.send("HeapProfiler.collectGarbage")
    return _metrics(session)["JSHeapUsedSize"] / 1e6


if __name__ == "__main__":
    main()
