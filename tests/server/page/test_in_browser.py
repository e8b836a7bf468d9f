"""The page in a real browser: a run as it goes, for everybody, and whatever its texts are."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from common.pages import FOLDER
from common.web import PARAMETER, guarded
from server.events import event_log
from tests.browser import IN_A_BROWSER, chromium, grave_findings, opened
from tests.builders import numbers_app
from tests.served import served
from tests.server.page.conftest import app_of, begun
from tests.server.test_run import PATIENTS, run

pytestmark = IN_A_BROWSER
TOKEN = "the-token"
BAD = "<img src=x onerror=alert(1)>"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as found:
        yield found


def test_a_run_is_seen_as_it_goes(browser: Any, tmp_path: Path) -> None:
    folder = begun(tmp_path / "live")
    event_log(folder)("start", rounds=3, done=0)
    with served(guarded(app_of(tmp_path), TOKEN)) as address:
        page, wrong = opened(browser, f"{address}/?{PARAMETER}={TOKEN}")
        assert PARAMETER not in page.url
        page.get_by_role("link", name="live").click()
        page.get_by_text("Interrupted.").wait_for()
        page.get_by_text("Live; newest event").wait_for()
        page.get_by_text("with differential privacy it never leaves").wait_for()
        assert grave_findings(page) == []
        run(folder, numbers_app(PATIENTS), "rounds=3")
        page.get_by_text("Completed.").wait_for()
        page.get_by_text("Round 3 of 3 is done.").wait_for()
        page.get_by_text("Over; newest event").wait_for()
        rows = page.locator("#sites tbody tr")
        assert [row.locator("th").inner_text() for row in rows.all()] == sorted(PATIENTS)
        page.wait_for_function(
            "() => document.querySelectorAll('#values [role=img] path.own').length === 3"
        )
        # With the keyboard alone: one site is marked, and the log tells of it alone.
        page.locator("#chosen").focus()
        page.keyboard.press("ArrowDown")
        page.wait_for_function("() => document.querySelector('#values path.chosen')")
        page.locator("#log-all").focus()
        page.keyboard.press("Space")
        page.locator("#log-text").fill("st-b")
        page.wait_for_function(
            """() => {
              const rows = [...document.querySelectorAll('#log tbody tr')];
              return rows.length > 2 && rows.every((row) => row.textContent.includes('st-b'));
            }"""
        )
        assert grave_findings(page) == []
        assert wrong == []


def test_whatever_a_text_is_it_stays_a_text(browser: Any, tmp_path: Path) -> None:
    folder = begun(tmp_path / BAD)
    tell = event_log(folder)
    tell("start", rounds=2, done=0)
    tell("enrolled", sites=[BAD], absent={f"{BAD}2": BAD})
    tell("measured", round=0, metric=BAD, values={BAD: 0.5})
    tell("end", status="failed", reason=BAD, epsilon={})
    with served(guarded(app_of(tmp_path), TOKEN)) as address:
        page, wrong = opened(browser, f"{address}/?{PARAMETER}={TOKEN}")
        page.get_by_role("link", name=BAD).click()
        page.get_by_text("Failed.").wait_for()
        page.wait_for_function("() => document.querySelectorAll('#log tbody tr').length > 2")
        assert page.locator("img").count() == 0
        assert page.locator("#reason").inner_text() == BAD
        assert wrong == []


def test_in_the_dark_and_on_a_small_screen_it_is_as_good(browser: Any, runs: Path) -> None:
    small = {"color_scheme": "dark", "viewport": {"width": 360, "height": 700}}
    with served(guarded(app_of(runs), TOKEN)) as address:
        page, wrong = opened(browser, f"{address}/?{PARAMETER}={TOKEN}", **small)
        page.get_by_role("link", name="done").wait_for()
        assert grave_findings(page) == []
        page.get_by_role("link", name="done").click()
        page.get_by_text("Completed.").wait_for()
        assert grave_findings(page) == []
        width = page.evaluate("document.documentElement.scrollWidth")
        assert width <= 360
        assert wrong == []


def test_a_state_that_comes_again_is_shown_again(browser: Any, runs: Path) -> None:
    with served(guarded(app_of(runs), TOKEN)) as address:
        page, _ = opened(browser, f"{address}/?{PARAMETER}={TOKEN}")
        page.get_by_role("link", name="done").wait_for()
        told = page.evaluate(
            """() => ["failed", "running", "failed"].map((state) => {
              const small = state === "failed" ? "quorum" : "";
              const cell = document.querySelector("#runs tbody td");
              show(cell, { text: state, kind: `text ${state}`, small });
              return cell.textContent;
            })"""
        )
    assert told == ["failedquorum", "running", "failedquorum"]


def test_a_tab_that_nobody_sees_holds_no_connection(browser: Any, tmp_path: Path) -> None:
    event_log(begun(tmp_path / "live"))("start", rounds=3, done=0)
    looks = """(hidden) => {
      Object.defineProperty(document, "hidden", { value: hidden, configurable: true });
      document.dispatchEvent(new Event("visibilitychange"));
    }"""
    with served(guarded(app_of(tmp_path), TOKEN)) as address:
        page, wrong = opened(browser, f"{address}/?{PARAMETER}={TOKEN}")
        page.goto(f"{address}/runs/live")
        page.get_by_text("Interrupted.").wait_for()
        page.evaluate(looks, True)
        event_log(tmp_path / "live")("round done", round=1, seconds=1.0)
        page.wait_for_timeout(1500)
        assert page.get_by_text("Round 1 of 3 is done.").count() == 0
        page.evaluate(looks, False)
        page.get_by_text("Round 1 of 3 is done.").wait_for()
        assert wrong == []


def test_of_a_long_run_an_update_writes_only_what_looks_other(browser: Any, tmp_path: Path) -> None:
    tell = event_log(begun(tmp_path / "long"))
    tell("start", rounds=9000, done=0)
    for number in range(1, 2001):
        tell("round done", round=number, seconds=1.0)
    with served(guarded(app_of(tmp_path), TOKEN)) as address:
        page, wrong = opened(browser, f"{address}/?{PARAMETER}={TOKEN}")
        asked: list[str] = []
        page.on("request", lambda sent: asked.append(sent.url) if "/curves" in sent.url else None)
        with page.expect_response("**/curves"):
            page.goto(f"{address}/runs/long")
        page.wait_for_function("() => document.querySelectorAll('#log tbody tr').length === 100")
        drawn = len(asked)
        page.evaluate("document.querySelector('#log tbody tr').wasFirst = true")
        tell("round done", round=2001, seconds=1.0)
        page.wait_for_function("() => document.querySelectorAll('#log tbody tr')[1].wasFirst")
        assert "round=2001" in page.locator("#log tbody tr").first.inner_text()
        page.wait_for_timeout(2500)
        assert len(asked) == drawn
        with page.expect_request("**/curves"):
            tell("round done", round=2010, seconds=1.0)
        assert wrong == []


def test_a_page_whose_run_or_log_in_is_gone_says_so(browser: Any, tmp_path: Path) -> None:
    event_log(begun(tmp_path / "live"))("start", rounds=3, done=0)
    with served(guarded(app_of(tmp_path), TOKEN)) as address:
        page, _ = opened(browser, f"{address}/?{PARAMETER}={TOKEN}")
        page.goto(f"{address}/runs/live")
        page.get_by_text("Interrupted.").wait_for()
        page.context.clear_cookies()
        hidden = "document.dispatchEvent(new Event('visibilitychange'))"
        page.evaluate(hidden)
        told = page.get_by_text("open this page with the URL that was printed")
        told.wait_for()
        assert page.inner_text("body") == told.inner_text()


def test_lines_of_many_sites_stand_out_from_the_paper() -> None:
    look, own = ((FOLDER / name).read_text() for name in ("look.css", "page.css"))
    (colour,) = re.findall(r"\.chart \.crowd { stroke: var\(--(\w+)\)", own)
    papers, lines = (re.findall(rf"--{name}: #(\w+)", look) for name in ("paper", colour))
    assert len(papers) == len(lines) == 2
    for paper, line in zip(papers, lines, strict=True):
        low, high = sorted((luminance(paper), luminance(line)))
        # WCAG 2.2, 1.4.11.
        assert (high + 0.05) / (low + 0.05) >= 3.0


def luminance(colour: str) -> float:
    """Return the relative luminance of a colour (WCAG 2.2)."""
    wide = colour if len(colour) == 6 else "".join(2 * letter for letter in colour)
    parts = [int(wide[place : place + 2], 16) / 255 for place in (0, 2, 4)]
    linear = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in parts]
    return sum(w * v for w, v in zip((0.2126, 0.7152, 0.0722), linear, strict=True))
