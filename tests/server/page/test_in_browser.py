"""The page in a real browser: a run as it goes, for everybody, and whatever its texts are."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

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
        assert grave_findings(page) == []
        run(folder, numbers_app(PATIENTS), "rounds=3")
        page.get_by_text("Completed.").wait_for()
        page.get_by_text("Round 3 of 3 is done.").wait_for()
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
