import json
import math
import re
from collections.abc import Callable
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest

from common.config import load_study
from common.contract import Description, Estimate
from common.tasks.registry import build_task
from server.records import Progress, RoundRecord, SiteRound, outcome_of, result_of
from server.report.render import Example, render_report
from tests.builders import spent

Make = Callable[..., dict[str, Any]]

VOID = {"meta", "br", "link", "img", "hr", "input"}
EVIL = '<script>alert("1")</script>--><b>&$x$'


class Page(HTMLParser):
    """Refuses tags that do not balance; keeps the texts, the rows and the attributes."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.rows: list[str] = []
        self.text = ""
        self.feed(html)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_startendtag(tag, attrs)
        if tag not in VOID:
            self.open.append(tag)
        if tag == "tr":
            self.rows.append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.text += data
        if "tr" in self.open:
            self.rows[-1] += data + " "


def example(size: int = 32, *, masks: bool = True, site: str = "st-a") -> Example:
    random = np.random.default_rng(0)
    truth = np.zeros((size, size), int)
    truth[size // 4 : size // 2, size // 3 :] = 1
    image = random.normal(size=(size, size))
    if not masks:
        return Example(site, "normal, told as normal", image, None, None)
    return Example(site, "dice 0.8", image, truth, np.roll(truth, 2, 0))


def failed(make: Make) -> dict[str, Any]:
    nothing: dict[str, Any] = {"mean": {}, "worst": {}, "worst_site": {}, "sites": {}}
    return {
        **make(rounds=1),
        "status": "failed",
        "reason": "no site agreed to the study",
        "rounds": [],
        "sites": {},
        "initial": nothing,
        "final": {**nothing, "missing": {}},
        "privacy": {},
        "baselines": {},
    }


def test_every_kind_of_result_is_balanced_html(make: Make) -> None:
    results = [
        make(),
        make(private=False, baselines=()),
        make([f"site-{k:02d}" for k in range(12)], rounds=1),
        failed(make),
    ]
    for result in results:
        page = Page(render_report(result, [example()]))
        assert page.tags[:2] == ["html", "head"]


def test_page_loads_nothing_and_runs_nothing(make: Make) -> None:
    html = render_report(make(), [example(), example(masks=False)])
    page = Page(html)
    links = [value for name, value in page.attributes if name in ("src", "href", "xlink:href")]
    assert links
    assert all(link.startswith(("#", "data:image/png;base64,")) for link in links)
    assert not re.search(r"https?:|@import|url\((?!#)", html)
    assert "script" not in page.tags
    assert not [name for name, _ in page.attributes if name.startswith("on")]


def test_identifiers_are_unique_and_references_lead_to_them(make: Make) -> None:
    page = Page(render_report(make(), []))
    identifiers = [value for name, value in page.attributes if name == "id"]
    assert len(identifiers) == len(set(identifiers))
    references = {value[1:] for name, value in page.attributes if name == "href"}
    references |= {
        found for _, value in page.attributes for found in re.findall(r"url\(#([^)]*)\)", value)
    }
    assert references
    assert references <= set(identifiers)


def test_site_names_and_reasons_are_escaped(make: Make) -> None:
    result = make([EVIL, "st-b"])
    result |= {"status": "partial", "reason": EVIL}
    result["study"]["name"] = EVIL
    result["rounds"][0]["missing"] = {EVIL: EVIL}
    html = render_report(result, [example(site=EVIL)])
    page = Page(html)
    assert "<script" not in html
    assert not {"script", "b"} & set(page.tags)
    assert page.text.count(EVIL) >= 8


def test_every_site_is_in_the_table(make: Make) -> None:
    sites = [f"hospital-{k:02d}" for k in range(20)]
    page = Page(render_report(make(sites), []))
    for site in sites:
        assert any(row.split()[0] == site and " 20 6 120 0 " in f" {' '.join(row.split())} "
                   for row in page.rows if row.split())  # fmt: skip


def test_site_that_never_came_is_told(make: Make) -> None:
    result = make()
    result |= {"status": "partial", "reason": "st-z: did not introduce itself"}
    result["rounds"][1]["missing"] = {"st-z": "no answer within 60 s"}
    result["rounds"][2]["missing"] = {"st-z": "no answer within 60 s"}
    result["final"]["missing"] = {"st-z": "no answer"}
    page = Page(render_report(result, []))
    assert "Partial." in page.text
    assert "st-z: did not introduce itself" in page.text
    rows = [" ".join(row.split()) for row in page.rows]
    assert "st-z 2\N{EN DASH}3 no answer within 60 s" in rows
    assert "st-z final evaluation no answer" in rows
    assert any("st-z never introduced itself" in row for row in rows)


@pytest.mark.parametrize("nothing", [None, math.nan])
def test_value_that_is_not_defined_is_said_so(make: Make, nothing: float | None) -> None:
    result = make()
    for part in ("initial", "final"):
        result[part]["sites"]["st-b"]["dice"] |= dict.fromkeys(("value", "low", "high"), nothing)
        result[part]["mean"]["dice"] = nothing
    for record in result["rounds"]:
        record["sites"]["st-b"]["before"] = {}
    text = Page(render_report(result, [])).text
    assert "not defined" in text
    assert "without a bar: st-b" in text
    assert not re.search(r"\b(nan|None)\b", text)


def test_nothing_was_evaluated_and_still_the_page_stands(make: Make) -> None:
    result = make()
    for part in ("initial", "final"):
        result[part]["sites"] = {}
    for record in result["rounds"]:
        for of_site in record["sites"].values():
            of_site["before"] = {}
    page = Page(render_report(result, []))
    assert "Over the rounds" not in page.text
    assert "Epsilon bounds" in page.text


def test_failed_run_says_why(make: Make) -> None:
    text = Page(render_report(failed(make), [])).text
    assert "Failed." in text
    assert "no site agreed to the study" in text
    assert "No round was completed." in text


def test_privacy_is_told_as_it_is(make: Make) -> None:
    private = Page(render_report(make(private=True), [])).text
    assert "What it does not cover:" in private
    assert "metrics on held-out patients unless a site" in " ".join(private.split())
    public = Page(render_report(make(private=False), [])).text
    assert "No differential privacy:" in public
    assert "Epsilon bounds" not in public
    unknown = Page(render_report(failed(make), [])).text
    assert "no site's account is known" in unknown


def test_baseline_that_is_better_is_called_better(make: Make) -> None:
    result = make(baselines=("ensemble",))
    result["final"]["mean"]["dice"] = 0.52
    result["baselines"]["ensemble"]["mean"]["dice"] = 0.81
    assert "better by 0.290" in Page(render_report(result, [])).text
    assert "Against baselines" not in Page(render_report(make(baselines=()), [])).text


def test_same_result_gives_the_same_page(make: Make) -> None:
    assert render_report(make(), [example()]) == render_report(make(), [example()])


def test_examples_tell_truth_from_prediction_by_line_and_colour(make: Make) -> None:
    text = Page(render_report(make(), [example()])).text
    assert "truth (solid)" in text
    assert "prediction (dashed)" in text
    classified = Page(render_report(make(), [example(masks=False)])).text
    assert "truth (solid)" not in classified
    assert "normal, told as normal" in classified


def test_large_study_stays_under_two_megabytes(make: Make) -> None:
    sites = [f"hospital-{k:02d}" for k in range(64)]
    html = render_report(make(sites, rounds=200), [example(256, site=site) for site in sites[:8]])
    assert len(html.encode()) < 2_000_000
    assert "lowest at the end" in html


def test_another_schema_or_status_is_refused(make: Make) -> None:
    with pytest.raises(ValueError, match="schema_version=2"):
        render_report({**make(), "schema_version": 2}, [])
    with pytest.raises(ValueError, match="status='fine'"):
        render_report({**make(), "status": "fine"}, [])


def test_what_the_server_records_can_be_rendered() -> None:
    study = load_study(["experiment=virtual_mri"])
    metrics = build_task(study.task).metrics
    estimates = {
        site: {name: Estimate(value=0.5, low=0.4, high=0.6, n=3) for name in metrics}
        for site in ("north", "south")
    }
    part = SiteRound(
        seconds=1, bytes_sent=10, bytes_received=10, steps=5, train_loss=None,
        before=estimates["north"], privacy=spent(epsilon=1.5), weight=9.0,
    )  # fmt: skip
    record = RoundRecord(
        round=1, seconds=2, participants=["north"], missing={"south": "late"}, sites={"north": part}
    )
    about = {"patients_train": 9, "patients_held_out": 3, "images_train": 18, "bad_files": 0}
    roster = {site: Description(site=site, **about) for site in estimates}
    progress = Progress(
        roster=roster, rounds=[record], initial=estimates, spent={"north": spent(epsilon=1.5)}
    )
    result = result_of(study, progress, outcome_of(progress, estimates, {}), metrics)
    page = Page(render_report(json.loads(json.dumps(result)), []))
    rows = [" ".join(row.split()) for row in page.rows]
    assert any(row.startswith("1 north south 0.500 not told") for row in rows)
    assert any(row.startswith("north 1.50 1.00 1.00 0.001 patient") for row in rows)


def test_no_table_stands_twice(make: Make) -> None:
    page = render_report(make(), [])
    told = re.findall(r"<summary>(.*?)</summary>", page) + re.findall(
        r"<caption>(.*?)</caption>", page
    )
    assert "As a table: epsilon spent over the rounds" in told
    assert len(told) == len(set(told))
