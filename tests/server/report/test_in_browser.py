"""The page in a real browser, where there is one: on a phone, on paper, to a screen reader."""

import http.server
import threading
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar

import pytest
from rich.console import Console

from common.files import read_json
from server.report.render import render_report
from server.run import RESULT
from server.showing import REPORT
from simulation.run import composed
from simulation.show import carry_out
from tests.browser import IN_A_BROWSER, chromium, grave_findings, opened
from tests.hospitals import Hospitals
from tests.server.report.compared import compared_result

pytestmark = IN_A_BROWSER
STUDY = (
    "experiment=smoke",
    "privacy=none",
    "evaluation=shift",
    "evaluation.profile_every=1",
    "evaluation.subgroups={age: [40, 60]}",
    "simulation.engine=inprocess",
    "+simulation.hospitals.a-hospital-of-a-long-name={scanner: flair_1p5t, patients: 24}",
    "+simulation.hospitals.west={scanner: spgr_t1_3t, patients: 23}",
)
PHONE = {"viewport": {"width": 390, "height": 844}, "device_scale_factor": 2, "is_mobile": True}
PAPER = {"viewport": {"width": 718, "height": 1000}}
"""A4 at 96 dots an inch, within margins of 1 cm."""
CUT_OFF = """() => [...document.body.querySelectorAll('*')]
  .filter((one) => !one.closest('.scroll') || one.matches('.scroll'))
  .filter((one) => one.getBoundingClientRect().right > document.documentElement.clientWidth + 1)
  .map((one) => one.outerHTML.slice(0, 200))"""
HIDDEN = """() => [...document.querySelectorAll('table, figure, figure > svg, p, li')]
  .filter((one) => !one.checkVisibility({contentVisibilityAuto: true}))
  .map((one) => one.outerHTML.slice(0, 200))"""


class Asked(http.server.BaseHTTPRequestHandler):
    """A proxy that notes what it is asked for, and gives nothing."""

    hosts: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        self.hosts.append(self.path)
        self.send_error(404)

    do_CONNECT = do_POST = do_GET

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def proxy() -> Iterator[str]:
    Asked.hosts.clear()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Asked) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as found:
        yield found


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory, hospitals: Hospitals) -> dict[str, Path]:
    """The pages of a run of seconds, and of a result with all that a page can show."""
    folder = tmp_path_factory.mktemp("reports")
    hospitals.given(folder / "run", *STUDY)
    run = composed(folder / "run", STUDY)
    assert carry_out(run, True, Console(quiet=True)) == "completed"
    whole = compared_result()
    estimate = next(iter(whole["final"]["sites"].values()))[whole["headline"]]
    whole["metrics"]["ece"] = {**whole["metrics"][whole["headline"]], "higher_is_better": False}
    for of in (*whole["final"]["sites"].values(), *whole["initial"]["sites"].values()):
        of["ece"] = estimate
    (folder / "whole.html").write_text(render_report(whole, []))
    return {"run": run.folder / REPORT, "whole": folder / "whole.html"}


@pytest.fixture(params=["run", "whole"])
def report(request: pytest.FixtureRequest, reports: dict[str, Path]) -> Path:
    return reports[str(request.param)]


def test_the_page_asks_for_nothing_but_itself_and_says_nothing(
    browser: Any, report: Path, proxy: str, tmp_path: Path
) -> None:
    def told(path: Path) -> tuple[list[str], list[str]]:
        page = browser.new_context(proxy={"server": proxy}).new_page()
        asked: list[str] = []
        said: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.goto(path.as_uri(), wait_until="networkidle")
        return asked, said

    asked, said = told(report)
    # Pictures of the examples are in the page itself.
    assert [url for url in asked if not url.startswith("data:")] == [report.as_uri()]
    assert (said, Asked.hosts) == ([], [])
    # The check sees what it looks for.
    wrong = tmp_path / "wrong.html"
    wrong.write_text(
        "<img src='http://elsewhere.test/x.png'><img src='beside.png'>"
        "<script>console.log('no')</script>"
    )
    asked, said = told(wrong)
    assert {url.rpartition("/")[2] for url in asked} == {"wrong.html", "x.png", "beside.png"}
    assert "no" in said
    assert any("elsewhere.test" in host for host in Asked.hosts)


def test_on_a_phone_nothing_is_cut_off_and_wide_tables_scroll_in_their_own_box(
    browser: Any, report: Path, tmp_path: Path
) -> None:
    page, wrong = opened(browser, report.as_uri(), **PHONE)
    for closed in (True, False):
        if not closed:
            page.evaluate("document.querySelectorAll('details').forEach((one) => one.open = true)")
        assert page.evaluate("document.documentElement.scrollWidth") == 390
        assert page.evaluate(CUT_OFF) == []
    wide = "[...document.querySelectorAll('.scroll')].some((one) => one.scrollWidth > 390)"
    assert page.evaluate(wide)
    page.screenshot(path=tmp_path / "phone.png", full_page=True)
    assert wrong == []


def test_on_paper_all_is_there_and_nothing_is_cut_off(
    browser: Any, report: Path, tmp_path: Path
) -> None:
    page, _ = opened(browser, report.as_uri(), **PAPER)
    # On a screen some of it waits to be opened.
    assert page.evaluate(HIDDEN) != []
    page.emulate_media(media="print")
    assert page.evaluate(HIDDEN) == []
    assert page.evaluate("document.documentElement.scrollWidth") == 718
    page.screenshot(path=tmp_path / "paper.png", full_page=True)
    page.pdf(path=tmp_path / "paper.pdf", format="A4")


def test_a_screen_reader_has_every_plot_as_a_table_and_every_table_by_its_name(
    browser: Any, report: Path
) -> None:
    page, _ = opened(browser, report.as_uri(), bypass_csp=True)
    page.evaluate("document.querySelectorAll('details').forEach((one) => one.open = true)")
    assert grave_findings(page) == []
    assert page.get_by_role("main").count() == 1
    levels = [
        int(one.evaluate("one => one.tagName")[1]) for one in page.get_by_role("heading").all()
    ]
    assert levels[0] == 1
    assert all(later <= before + 1 for before, later in pairwise(levels))
    tables = page.get_by_role("table").all()
    names = [table.locator("caption").inner_text() for table in tables]
    assert len(names) == len(set(names)) > 10
    for table in tables:
        assert table.get_by_role("rowheader").count() == table.locator("tbody tr").count()
    for plot in page.locator("figure > svg[role=img]").all():
        title = plot.get_attribute("aria-label")
        assert title
        if title.endswith("over the rounds"):
            assert page.get_by_role("table", name=title).count() == 1, title


def test_the_page_of_a_run_answers_each_hospital_first_of_all(
    browser: Any, reports: dict[str, Path]
) -> None:
    page, _ = opened(browser, reports["run"].as_uri())
    result = read_json(reports["run"].parent / RESULT)
    answers = page.locator(".answers li").all_inner_texts()
    assert len(answers) == len(result["sites"])
    for site, text in zip(sorted(result["sites"]), answers, strict=True):
        assert text.startswith(f"{site}: ")
        assert any(word in text for word in ("better", "worse", "the same", "No comparison"))
    first = page.get_by_role("heading", level=2).first.inner_text()
    assert first == "Does joining help?"
