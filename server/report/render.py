"""The report of a run: one HTML page without scripts that loads nothing from anywhere."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from common import pictures
from common.newcomer import MEASURE
from common.pages import FOLDER as LOOK
from common.pictures import Example
from server.report import apart, curves, joining, plots, tables, words
from server.report.reading import estimate, estimates, is_private, site_names

__all__ = ["Example", "render_report"]

_TEMPLATE = "template.html.jinja"
_VERDICTS = {
    "completed": "Every agreed site took part in every round that asked it.",
    "partial": "There is a final model, but a site was missing at least once.",
    "failed": "There is no final model.",
    "stopped": "The coordinator stopped it; the model is that of the last full round.",
}


def render_report(result: Mapping[str, Any], examples: Sequence[Example]) -> str:
    """Return the page of a run; the same result gives the same page.

    result: the content of result.json, schema_version 1 (server/records.py). What it lacks (a
    baseline, an account of privacy, any round at all) is left out of the page or told in words.
    examples: pictures whose showing the sites have agreed to; the server has none of its own.

    Raises:
        ValueError: the result's schema_version or status is unknown, or an example's mask does not
            have its image's shape.
    """
    if result.get("schema_version") != 1:
        raise ValueError(
            f"schema_version={result.get('schema_version')} of the result is not known; render it "
            "with the version of wardround that wrote it (see software in result.json)"
        )
    if result["status"] not in _VERDICTS:
        raise ValueError(
            f"status={result['status']!r} of the result is not known; "
            f"it is one of: {', '.join(_VERDICTS)}"
        )
    page = _environment().get_template(_TEMPLATE)
    return page.render(
        **_shift_parts(result),
        result=result,
        headline=result["headline"],
        verdict=_VERDICTS[result["status"]],
        figures=tables.key_figures(result),
        missing=tables.missing_rows(result),
        sites=tables.site_rows(result),
        metrics=_all_metrics(result),
        curves=curves.headline_curves(result),
        intervals=plots.site_intervals(result),
        baselines=tables.baseline_rows(result),
        epsilon=curves.epsilon_curves(result),
        private=is_private(result),
        privacy=tables.privacy_rows(result),
        rounds=tables.round_rows(result),
        pictures=pictures.draw(examples),
        settings=list(tables.settings(result["study"])),
    )


def _shift_parts(result: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the page shows of the comparison of the sites (shift.html.jinja)."""
    overall = joining.overall_rows(result)
    return {
        "answers": joining.answers(result),
        "answer": joining.summary_sentence(result),
        "matrix": joining.matrix_rows(result),
        "overall": overall,
        "with_pooled": any(row.gap_to_pooled is not None for row in overall),
        "agreement": joining.agreement_sentence(result),
        "left_out": (result.get("shift") or {}).get("left_out"),
        "predicted_outside": apart.left_out_sentence(result),
        "subgroups": joining.subgroup_rows(result),
        "benefit": curves.benefit_curves(result),
        "calibration": curves.calibration_curves(result),
        "reliability": plots.reliability_curves(result),
        "site_map": plots.site_map(apart.places(result)),
        "places": apart.places(result),
        "apart": apart.tables(result),
        "apart_over_rounds": apart.over_rounds(result),
        "alarm": apart.alarm_sentence(result),
        "predicted": apart.prediction_sentence(result),
        "prediction": _prediction(result),
        "distance_measure": MEASURE,
    }


def _environment() -> Environment:
    environment = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        loader=FileSystemLoader([Path(__file__).parent, LOOK]),
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "number": words.number,
        "sentence": words.sentence,
        "signed": words.signed,
        "interval": words.interval,
        "data_size": words.data_size,
        "duration": words.duration,
        "chance": words.chance,
        # Charts are the only markup that is not escaped; drawing.py escapes the texts in them.
        "chart": lambda chart: Markup(chart.svg),
        "rows": lambda chart: tables.rows_of(chart.lines),
    }
    return environment


def _prediction(result: Mapping[str, Any]) -> dict[str, Mapping[str, float]]:
    return ((result.get("shift") or {}).get("prediction") or {}).get("sites") or {}


def _all_metrics(result: Mapping[str, Any]) -> list[tuple[str, list[Mapping[str, Any]]]]:
    """Return every site's estimates of all metrics, in the order of the result's metrics."""
    final = estimates(result, "final")
    names = list(result["metrics"])
    return [
        (site, [estimate(final[site], name) for name in names])
        for site in site_names(result)
        if site in final
    ]
