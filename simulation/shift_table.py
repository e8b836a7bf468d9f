"""The table of a shift study: from the results of its runs to rows, and to what may be said."""

from collections.abc import Iterator, Mapping, Sequence
from statistics import mean, pstdev
from typing import Any

from rich.table import Table

from common.contract import LOCAL
from server.evaluation.shift import FEDERATED, POOLED
from simulation.outcomes import Outcome
from simulation.table_config import ENSEMBLE, RowOfStudy, TableConfig

Place = tuple[str, str, int, str | None]
"""Experiment, row, seed, and the site that is left out."""
Row = dict[str, Any]
COMPLETED = "completed"
NOT_FEDERATED = (LOCAL, POOLED, ENSEMBLE)


def rows_of(table: TableConfig, results: Mapping[Place, Outcome]) -> list[Row]:
    """Return a row for each method at each data set, means over the seeds.

    One that is not run there has `runs` 0 and no figures. Megabytes and seconds are of runs with
    all sites; at a data set that has none of those, of the runs without a site each.
    """
    return [
        _row(table, experiment, name, about, {} if experiment in about.not_at else results)
        for experiment in table.data_sets()
        for name, about in table.method_rows().items()
    ]


def _row(
    table: TableConfig,
    experiment: str,
    name: str,
    about: RowOfStudy,
    results: Mapping[Place, Outcome],
) -> Row:
    source = about.run or name
    mine = [of for place, of in results.items() if place[:2] == (experiment, source)]
    whole = [of for s in table.seeds if (of := results.get((experiment, source, s, None)))]
    # A run that lost a site is no run of this row: its mean would be over others.
    whole = [of for of in whole if of.status == COMPLETED]
    costly = whole
    if not table.data_sets()[experiment].whole:
        costly = [of for of in mine if of.status == COMPLETED]
    sites = [of.values.get(about.model, {}) for of in whole]
    left_out = {
        without: value
        for (of, row, _, without), outcome in results.items()
        if (of, row) == (experiment, source) and without is not None and outcome.status == COMPLETED
        if (value := outcome.values.get(about.model, {}).get(without)) is not None
    }
    some = next(iter(mine), None)
    better = max if some and some.higher_is_better else min
    worst = min if better is max else max
    travels = about.model not in NOT_FEDERATED
    return {
        "experiment": experiment,
        "row": name,
        "model": about.model,
        "metric": some and some.metric,
        "higher_is_better": better is max,
        "runs": len(mine),
        "completed": sum(of.status == COMPLETED for of in mine),
        "weighted_by_held_out": bool(some and some.weighted_by_held_out),
        "mean": _mean([mean(of.values()) for of in sites if of]),
        "spread": _spread([mean(of.values()) for of in sites if of]),
        "worst": _mean([worst(of.values()) for of in sites if of]),
        "sites": {s: _mean([of[s] for of in sites if s in of]) for s in sorted(_all(sites))},
        "left_out": _mean(list(left_out.values())),
        "left_out_sites": left_out,
        "rounds": some.rounds if some and travels else None,
        "megabytes": _mean([of.megabytes for of in costly]) if travels else None,
        "seconds": _mean([of.seconds for of in costly]) if travels else None,
        "curve": _curve(costly) if about.model == FEDERATED else [],
        "made_with": sorted({of.made_with for of in mine}),
    }


def summaries_of(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Return by experiment the best federated row beside pooled and beside each site's own.

    Of the rows whose runs are all complete; one whose weights the tested patients have set is not
    compared. gap_to_pooled: the best row's mean minus pooled's, turned so that more is better.
    least_over_local: the row minus the site's own model, at the site where that is least. by: mean,
    or left_out at a data set whose every run leaves a site out.
    """
    found = []
    for experiment in dict.fromkeys(row["experiment"] for row in rows):
        here = [row for row in rows if row["experiment"] == experiment and row["runs"]]
        by = "mean" if any(row["mean"] is not None for row in here) else "left_out"
        here = [row for row in here if row[by] is not None and row["completed"] == row["runs"]]
        federated = [row for row in here if row["model"] not in NOT_FEDERATED]
        federated = [row for row in federated if not row["weighted_by_held_out"]]
        if not federated:
            continue
        sign = 1.0 if here[0]["higher_is_better"] else -1.0
        best = max(federated, key=lambda row: sign * row[by])
        pooled, local = _of(here, POOLED), _of(here, LOCAL)
        own = local["sites"] if local is not None else {}
        over = {s: sign * (value - own[s]) for s, value in best["sites"].items() if s in own}
        least = min(over, key=lambda site: over[site], default=None)
        found.append(
            {
                "experiment": experiment,
                "best": best["row"],
                "by": by,
                "gap_to_pooled": sign * (best[by] - pooled[by]) if pooled else None,
                "least_over_local_at": least,
                "least_over_local": None if least is None else over[least],
            }
        )
    return found


def tables_of(rows: Sequence[Row], summaries: Sequence[Mapping[str, Any]]) -> Iterator[Table]:
    """Yield a table for each data set, and one of the best rows."""
    for experiment in dict.fromkeys(row["experiment"] for row in rows):
        here = [row for row in rows if row["experiment"] == experiment and row["runs"]]
        if not here:
            continue
        table = _table(f"{experiment}: {here[0]['metric']}", "method")
        for column in (
            "runs",
            "mean",
            "seeds ±",
            "worst site",
            "left out",
            "rounds",
            "MB",
            "seconds",
        ):
            table.add_column(column, justify="right", no_wrap=True)
        for row in here:
            figures = [_number(row[k], 3) for k in ("mean", "spread", "worst", "left_out")]
            cost = [_number(row[k], 0) for k in ("rounds", "megabytes", "seconds")]
            mark = " *" if row["weighted_by_held_out"] else ""
            runs = f"{row['completed']} of {row['runs']}"
            table.add_row(row["row"] + mark, runs, *figures, *cost)
        table.caption = _caption(here, [row["row"] for row in rows if _not_run(row, experiment)])
        yield table
    if summaries:
        yield _best(summaries)


def curves_of(rows: Sequence[Row]) -> Iterator[Table]:
    """Yield a table for each data set: what the sites sent in all, and the metric on the way.

    `of first` is what was sent over what the first row's sites sent. Where there are several seeds,
    means over them; a row of which a run is not there has no curve.
    """
    for experiment in dict.fromkeys(row["experiment"] for row in rows):
        here = [row for row in rows if row["experiment"] == experiment and row["curve"]]
        if not here:
            continue
        table = _table(f"{experiment}: {here[0]['metric']} after so many rounds", "method")
        stops = sorted({rounds for row in here for rounds, _, _ in row["curve"]})
        for column in ("MB sent", "of first", *map(str, stops)):
            table.add_column(column, justify="right", no_wrap=True)
        federated = (row for row in rows if row["model"] == FEDERATED)
        whole = next(row["curve"] for row in federated if row["experiment"] == experiment)
        first = whole[-1][1] if whole else 0.0
        for row in here:
            sent, value = row["curve"][-1][1], {of: at for of, _, at in row["curve"]}
            share = f"{100 * sent / first:.1f} %" if first else "-"
            values = [_number(value.get(stop), 3) for stop in stops]
            table.add_row(row["row"], _number(sent, 1), share, *values)
        yield table


def _curve(outcomes: Sequence[Outcome]) -> list[tuple[int, float, float]]:
    """Return the mean of the curves, where all of them have a point; none unless all have one."""
    told = [{rounds: (mb, value) for rounds, mb, value in of.curve or ()} for of in outcomes]
    if not told or len({max(of, default=None) for of in told}) > 1:
        return []
    common = sorted(set.intersection(*(set(of) for of in told)))
    return [(at, mean(of[at][0] for of in told), mean(of[at][1] for of in told)) for at in common]


def _not_run(row: Row, experiment: str) -> bool:
    return row["experiment"] == experiment and not row["runs"]


def _caption(here: Sequence[Row], not_run: Sequence[str]) -> str | None:
    told = []
    if any(row["weighted_by_held_out"] for row in here):
        told.append("* its weights follow the patients that it is tested on, left out aside")
    if not_run:
        told.append(f"not run here: {', '.join(not_run)}")
    return "\n".join(told) or None


def _best(summaries: Sequence[Mapping[str, Any]]) -> Table:
    table = _table("the best federated row", "data set")
    for column in ("row", "to pooled", "least to own model", "at"):
        table.add_column(column, justify="right", no_wrap=True)
    for of in summaries:
        gap, own = (_number(of[key], 3) for key in ("gap_to_pooled", "least_over_local"))
        name = of["experiment"] + (", left out" if of["by"] == "left_out" else "")
        table.add_row(name, of["best"], gap, own, of["least_over_local_at"] or "-")
    return table


def _table(title: str, first: str) -> Table:
    table = Table(title=title)
    table.add_column(first, no_wrap=True)
    return table


def _all(sites: Sequence[Mapping[str, float]]) -> set[str]:
    return {site for of in sites for site in of}


def _of(rows: Sequence[Row], model: str) -> Row | None:
    return next((row for row in rows if row["model"] == model), None)


def _mean(values: Sequence[float]) -> float | None:
    return mean(values) if values else None


def _spread(values: Sequence[float]) -> float | None:
    return pstdev(values) if len(values) > 1 else None


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
