"""Every number of the page's comparison stands in result.json."""

import re
from collections.abc import Iterator
from html.parser import HTMLParser
from typing import Any

import pytest

from server.report.render import render_report
from server.report.words import number, signed
from tests.server.report.compared import compared_result

NUMBER = re.compile(r"(?<![\w.-])[+\N{MINUS SIGN}]?\d+(?:\.\d+)?(?:e[+\N{MINUS SIGN}]?\d+)?")


class Tables(HTMLParser):
    """The text of every cell of the tables, by caption."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.cells: dict[str, list[str]] = {}
        self.caption, self.inside = "", ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "table":
            self.caption = ""
        if tag in ("caption", "td", "th"):
            self.inside = tag
            if tag != "caption":
                self.cells.setdefault(self.caption, []).append("")
        if tag in ("small", "br") and self.inside in ("td", "th"):
            self.cells[self.caption][-1] += " "

    def handle_endtag(self, tag: str) -> None:
        if tag == self.inside:
            self.inside = ""

    def handle_data(self, data: str) -> None:
        if self.inside == "caption":
            self.caption += data
        elif self.inside:
            self.cells[self.caption][-1] += data


def numbers_in(value: Any) -> Iterator[float]:
    """Yield every number of a part of result.json, also those that are keys."""
    if isinstance(value, dict):
        for key, of in value.items():
            yield from [float(key)] if key.isdecimal() else []
            yield from numbers_in(of)
    elif isinstance(value, list):
        for of in value:
            yield from numbers_in(of)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield value


def as_printed(value: float) -> set[str]:
    return {number(value), signed(value), *([f"{value:.0f}"] if value == int(value) else [])}


@pytest.fixture(scope="module")
def result() -> dict[str, Any]:
    return compared_result()


@pytest.fixture(scope="module")
def shown(result: dict[str, Any]) -> dict[str, list[str]]:
    page = render_report(result, [])
    part = page[page.index("<h2>Does joining help?") : page.index("<h2>Sites")]
    return Tables(part).cells


def test_every_number_of_the_comparisons_tables_is_in_the_result(
    result: dict[str, Any], shown: dict[str, list[str]]
) -> None:
    told = {text for value in numbers_in(result["shift"]) for text in as_printed(value)}
    told |= as_printed(len(result["rounds"]))
    found = {text for cells in shown.values() for cell in cells for text in NUMBER.findall(cell)}
    assert len(found) > 150
    assert found <= told


def test_every_table_of_the_comparison_says_what_it_is(shown: dict[str, list[str]]) -> None:
    assert "" not in shown
    for what in (
        "on the map",
        "over all hospitals",
        "subgroup",
        "when it does not",
        "each round",
        "enefit of joining",
    ):
        assert any(what in caption for caption in shown), what


@pytest.mark.parametrize(
    "path",
    ["map", "subgroup_summary", "distance_mean_after", "concordance", "benefit_after", "alarm"],
)
def test_the_page_works_out_none_of_them(result: dict[str, Any], path: str) -> None:
    without = {**result, "shift": {k: v for k, v in result["shift"].items() if k != path}}
    assert len(NUMBER.findall(render_report(without, []))) < len(
        NUMBER.findall(render_report(result, []))
    )
