from typing import Any

import pytest

from common.tasks.task import Metric
from server.evaluation.shift import concordance, summary_of, with_models
from server.report.joining import (
    agreement_sentence,
    answers,
    matrix_rows,
    overall_rows,
    subgroup_rows,
    summary_sentence,
)
from server.report.render import render_report
from tests.server.report.conftest import Make

DICE = Metric(higher_is_better=True, unit="", meaning="overlap")


def cell(value: float | None, why: str = "") -> dict[str, Any]:
    if value is None:
        return {"value": None, "low": None, "high": None, "n": 0, "status": "failed", "why": why}
    return {"value": value, "low": value - 0.1, "high": value + 0.1, "n": 9, "status": "ok"}


def benefit(gap: float | None, low: float | None, high: float | None, verdict: str) -> Any:
    return {"gap": gap, "low": low, "high": high, "verdict": verdict}


@pytest.fixture
def result() -> dict[str, Any]:
    matrix = {
        "local/a": {"a": cell(0.7), "b": cell(0.1), "c": cell(None, "gone")},
        "local": {"a": cell(0.7), "b": cell(0.6), "c": cell(None, "gone")},
        "federated": {"a": cell(0.8), "b": cell(0.5), "c": cell(None, "gone")},
    }
    return {
        "metrics": {"dice": {"higher_is_better": True}},
        "shift": {
            "metric": "dice",
            "matrix": matrix,
            "benefit": {
                "a": benefit(0.1, 0.05, 0.15, "helped"),
                "b": benefit(-0.1, -0.2, 0.02, "undecided"),
                "c": benefit(None, None, None, "unknown"),
            },
            "summary": {model: summary_of(of, DICE) for model, of in matrix.items()},
            "concordance": concordance(matrix),
        },
    }


def test_every_hospital_has_its_answer_in_words(result: dict[str, Any]) -> None:
    one, two, three = answers(result)
    assert one.title == "Joining helped"
    assert one.text == (
        "The federated model has a dice of 0.800 there, the site's own 0.700: 0.100 better, "
        "95 % interval 0.050 to 0.150."
    )
    assert "0.100 worse, but the 95 % interval \N{MINUS SIGN}0.200 to 0.020 includes 0" in two.text
    assert three.text == "No comparison: gone."


def test_a_harmed_hospital_and_a_noised_one_are_told_as_such(result: dict[str, Any]) -> None:
    result["shift"]["benefit"]["a"] = benefit(-0.1, -0.2, -0.05, "harmed")
    result["shift"]["benefit"]["b"] = benefit(0.1, None, None, "undecided")
    harmed, noised, _ = answers(result)
    assert harmed.title == "Joining harmed"
    assert "worse" in harmed.text
    assert "without an interval: its metrics are noised" in noised.text


def test_models_that_are_alike_for_every_patient_are_told_as_the_same(
    result: dict[str, Any],
) -> None:
    result["shift"]["benefit"]["a"] = benefit(0.0, 0.0, 0.0, "undecided")
    assert answers(result)[0].text.endswith("the same, whichever of its patients are drawn.")


def test_the_summary_names_the_worst_site(result: dict[str, Any]) -> None:
    assert summary_sentence(result) == (
        "Of 3 hospitals: 1 helped, 1 undecided, 1 unknown. The model does worst at b: a dice of "
        "0.500, where the mean is 0.650."
    )


def test_a_model_that_learned_nothing_is_told_as_such(result: dict[str, Any]) -> None:
    result["initial"] = {"mean": {"dice": 0.1}}
    assert "hardly" not in summary_sentence(result)
    result["initial"] = {"mean": {"dice": 0.645}}
    assert "hardly learned anything: untrained it had 0.645" in summary_sentence(result)


def test_the_federated_model_is_the_first_row_and_the_best_cell_the_darkest(
    result: dict[str, Any],
) -> None:
    rows = matrix_rows(result)
    assert [row.model for row in rows] == ["federated", "local", "local/a"]
    shades = [cell.shade for row in rows for cell in row.cells]
    assert shades == [100, 57, None, 86, 71, None, 86, 0, None]
    assert rows[2].about == "the own model of a, at every site"
    assert rows[0].cells[2].why == "failed: gone"
    result["metrics"]["dice"]["higher_is_better"] = False
    assert matrix_rows(result)[2].cells[1].shade == 100


def test_a_study_that_does_not_compare_has_no_answer() -> None:
    assert answers({}) == []
    assert matrix_rows({}) == []
    # One that tells of sites left out alone has none either.
    left_out = {"shift": {"metric": "dice", "left_out": {"rows": []}}}
    assert answers(left_out) == []
    assert matrix_rows(left_out) == []
    assert overall_rows(left_out) == []
    assert summary_sentence(left_out) == agreement_sentence(left_out) == ""


def test_subgroups_are_shown_with_their_patients(result: dict[str, Any]) -> None:
    assert subgroup_rows(result) == []
    few = cell(None, "too few patients")
    result["shift"]["subgroups"] = {
        "sex=F": {"a": {**cell(0.5), "n": 7}, "b": few, "c": few},
        "sex=M": {"a": {**cell(0.9), "n": 9, "low": None, "high": None}, "b": few, "c": few},
    }
    groups = result["shift"]["subgroups"]
    told = {group: summary_of(cells, DICE) for group, cells in groups.items()}
    result["shift"]["subgroup_summary"] = told
    women, men = subgroup_rows(result)
    assert (women.cells[0].patients, women.cells[0].interval) == ("7 patients", "0.400 to 0.600")
    assert (men.cells[0].patients, men.cells[0].interval) == ("9 patients", "")
    assert (women.cells[0].shade, men.cells[0].shade) == (0, 100)
    assert "too few patients" in women.cells[1].why
    assert (women.mean, women.worst) == (0.5, 0.5)


def test_every_cell_says_of_how_many_patients_it_is(result: dict[str, Any]) -> None:
    result["shift"]["matrix"]["federated"]["b"]["n"] = 1
    federated = matrix_rows(result)[0]
    assert [cell.patients for cell in federated.cells] == ["9 patients", "1 patient", ""]


def test_each_model_is_told_over_all_hospitals(result: dict[str, Any]) -> None:
    pooled = {"pooled": {"a": cell(0.9), "b": cell(0.7), "c": cell(None, "gone")}}
    assert all(row.gap_to_pooled is None for row in overall_rows(result))
    result["shift"] = with_models(result["shift"], pooled, DICE)
    federated = overall_rows(result)[0]
    assert (federated.model, federated.worst_site, federated.sites) == ("federated", "b", 2)
    assert federated.spread == pytest.approx(0.15)
    assert federated.gap_to_pooled == pytest.approx(0.65 - 0.8)
    assert [row.model for row in overall_rows(result)] == [row.model for row in matrix_rows(result)]


def test_agreement_is_told_where_it_is_known(result: dict[str, Any]) -> None:
    told = result["shift"]["concordance"]
    assert f"which of these models is better: {told:.3f}." in agreement_sentence(result)
    result["shift"]["concordance"] = None
    assert agreement_sentence(result) == agreement_sentence({}) == ""


def test_the_page_shows_patients_spread_and_agreement(make: Make, result: dict[str, Any]) -> None:
    page = render_report({**make(("a", "b", "c")), "shift": result["shift"]}, [])
    assert 'title="9 patients, 0.700 to 0.900">0.800<small>9 patients</small>' in page
    assert "<caption>dice of each model over all hospitals" in page
    assert "how far the hospitals lie from the mean" in page
    assert "put the models in the same order" in page
    # Without a model of all data put together there is nothing to hold the others against.
    assert "Against all data" not in page
    shift = with_models(result["shift"], {"pooled": {s: cell(0.9) for s in "abc"}}, DICE)
    page = "".join(render_report({**make(("a", "b", "c")), "shift": shift}, []).split())
    assert "<td>b</td><td>0.150</td><td>\N{MINUS SIGN}0.250</td><td>2</td>" in page
