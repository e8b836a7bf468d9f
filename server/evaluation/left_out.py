"""What a hospital that did not join would get: a study with all sites beside the same without one.

A site that is left out does not train and is tested on the same held-out patients. Inside minus
outside is what its own data did for it: where that is much, the model does not go beyond the
hospitals that made it.
"""

from collections.abc import Mapping, Sequence
from statistics import mean
from typing import Any

from rich.table import Table

from common.contract import Estimate
from common.tasks.task import Metric
from server.evaluation.prediction import scored_outside

Result = Mapping[str, Any]
Row = Mapping[str, Any]


def row_of(site: str, whole: Result, without: Result, gain: Estimate | None = None) -> Row:
    """Return the headline metric at a site from the results with it and without it.

    gain: inside minus outside, by a paired bootstrap over the site's patients, where their values
    are at hand; `low` and `high` are its interval, turned so that more is better.
    """
    name = whole["headline"]
    others = [_value(without, other, name) for other in without["final"]["sites"] if other != site]
    better = whole["metrics"][name]["higher_is_better"]
    return {
        "site": site,
        "status": without["status"],
        "n": whole["final"]["sites"].get(site, {}).get(name, {}).get("n", 0),
        "inside": _value(whole, site, name),
        "outside": _value(without, site, name),
        "others": _mean(others),
        **_interval(gain, better),
    }


def _interval(gain: Estimate | None, higher_is_better: bool) -> dict[str, float | None]:
    if gain is None or gain.low is None or gain.high is None:
        return {"low": None, "high": None}
    if higher_is_better:
        return {"low": gain.low, "high": gain.high}
    return {"low": -gain.high, "high": -gain.low}


def with_left_out(
    result: Result, rows: Sequence[Row], without: Mapping[str, Result]
) -> dict[str, Any]:
    """Return the result of a study with all sites, with the rows in its `shift`.

    without: by site, the result without it. A study that did not compare the sites has a `shift` of
    nothing else.
    """
    metric = Metric(**result["metrics"][result["headline"]])
    shift = {"metric": result["headline"], **result.get("shift", {})}
    left_out = {
        "rows": list(rows),
        **summary_of(rows, metric.higher_is_better),
        **_predicted(result, without, metric),
    }
    return {**result, "shift": {**shift, "left_out": left_out}}


def _predicted(
    result: Result, without: Mapping[str, Result], metric: Metric
) -> dict[str, dict[str, Any]]:
    """Return how well distance tells what a site gets that the model has not seen."""
    told = (result.get("shift") or {}).get("prediction") or {}
    name = result["headline"]
    each = {
        site: {at: _value(of, at, name) for at in of["final"]["sites"]}
        for site, of in without.items()
    }
    values = {
        s: {at: value for at, value in of.items() if value is not None} for s, of in each.items()
    }
    found = scored_outside(told.get("sites", {}), values, metric)
    return {} if found is None else {"prediction": {"measure": told["measure"], **found}}


def _value(result: Result, site: str, name: str) -> float | None:
    value: float | None = result["final"]["sites"].get(site, {}).get(name, {}).get("value")
    return value


def gap_of(row: Row, higher_is_better: bool) -> float | None:
    """Return how much better the model is where the site took part; None if it is not known."""
    if row["inside"] is None or row["outside"] is None:
        return None
    gap = row["inside"] - row["outside"]
    return float(gap if higher_is_better else -gap)


def summary_of(rows: Sequence[Row], higher_is_better: bool) -> dict[str, Any]:
    """Return the mean gap, and the site with the largest."""
    gaps = {row["site"]: gap_of(row, higher_is_better) for row in rows}
    known = {site: gap for site, gap in gaps.items() if gap is not None}
    worst = max(known, key=lambda site: known[site], default=None)
    return {
        "gaps": gaps,
        "mean_gap": mean(known.values()) if known else None,
        "largest_gap_at": worst,
    }


def table_of(rows: Sequence[Row], higher_is_better: bool, title: str) -> Table:
    """Return the rows as a table; `gap` is inside minus outside, turned so that more is better."""
    table = Table(title=title)
    table.add_column("left out", no_wrap=True)
    for column in ("inside", "outside", "gap", "95 % interval", "other sites"):
        table.add_column(column, justify="right", no_wrap=True)
    for row in rows:
        values = (row["inside"], row["outside"], gap_of(row, higher_is_better))
        interval = (
            f"{_number(row['low'])} to {_number(row['high'])}" if row["low"] is not None else "-"
        )
        table.add_row(row["site"], *map(_number, values), interval, _number(row["others"]))
    table.add_section()
    about = summary_of(rows, higher_is_better)
    means = [_mean([row[key] for row in rows]) for key in ("inside", "outside")]
    table.add_row("mean", *map(_number, [*means, about["mean_gap"]]), "", "")
    return table


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return mean(known) if known else None


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
