"""The report's answer: does joining help this hospital, and how does each model do at each site?"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from server.report.reading import Result, comparison, higher_is_better
from server.report.words import NOT_DEFINED, number

LEAST_GAIN = 0.01
"""Of the mean over the untrained model, below which a study has taught its model nothing."""
_ABOUT = {
    "federated": "the model of this study",
    "local": "each site's own model, at home",
    "personal": "the federated model, trained further at home",
    "pooled": "one model of all sites' data put together",
    "ensemble": "the mean prediction of all sites' own models",
}
_TITLES = {
    "helped": "Joining helped",
    "harmed": "Joining harmed",
    "undecided": "Undecided",
    "unknown": "Not known",
}


@dataclass(frozen=True)
class Answer:
    """The answer for one hospital."""

    site: str
    verdict: str
    title: str
    text: str


@dataclass(frozen=True)
class Cell:
    """A model at a site, as it is shown."""

    value: str
    patients: str
    """How many it is of, in words; empty without a value."""
    interval: str
    """Empty where there is none."""
    why: str
    """Why there is no value; empty where there is one."""
    shade: int | None
    """0 for the worst of all cells to 100 for the best; None without a value."""


@dataclass(frozen=True)
class Overall:
    """One model over all hospitals; each number is None where it is not known."""

    model: str
    mean: float | None
    worst: float | None
    worst_site: str | None
    spread: float | None
    """Standard deviation of its values over the hospitals."""
    gap_to_pooled: float | None
    """Its mean against that of one model of all data put together; below 0: worse."""
    sites: int
    """Hospitals that have a value."""


@dataclass(frozen=True)
class Row:
    """One model at all sites."""

    model: str
    about: str
    cells: list[Cell]
    mean: float | None
    worst: float | None


def answers(result: Result) -> list[Answer]:
    """Return one sentence or two a hospital; empty where the study did not ask."""
    shift = comparison(result)
    if shift is None:
        return []
    return [_answer(shift, site, benefit) for site, benefit in shift["benefit"].items()]


def _answer(shift: Mapping[str, Any], site: str, benefit: Mapping[str, Any]) -> Answer:
    verdict = benefit["verdict"]
    ours = shift["matrix"]["federated"][site]
    own = shift["matrix"].get("local", {}).get(site, {})
    if benefit["gap"] is None:
        why = ours.get("why") or own.get("why") or "the site told nothing of a model of its own"
        return Answer(site, verdict, _TITLES[verdict], f"No comparison: {why}.")
    name = shift["metric"]
    text = (
        f"The federated model has a {name} of {number(ours['value'])} there, the site's own "
        f"{number(own.get('value'))}: {_more(benefit['gap'])}, {_how_sure(benefit)}."
    )
    return Answer(site, verdict, _TITLES[verdict], text)


def _more(gap: float) -> str:
    return f"{number(abs(gap))} {'better' if gap > 0 else 'worse'}" if gap else "the same"


def _how_sure(benefit: Mapping[str, Any]) -> str:
    if benefit["low"] is None:
        return "without an interval: its metrics are noised, or one patient is held out"
    if benefit["low"] == benefit["high"] == 0:
        return "whichever of its patients are drawn"
    span = f"95 % interval {number(benefit['low'])} to {number(benefit['high'])}"
    return span if benefit["verdict"] != "undecided" else f"but the {span} includes 0"


def summary_sentence(result: Result) -> str:
    """Return in one sentence how many hospitals are helped, and where the model does worst.

    Empty where the study did not ask.
    """
    shift = comparison(result)
    if shift is None:
        return ""
    verdicts = [benefit["verdict"] for benefit in shift["benefit"].values()]
    counts = ", ".join(
        f"{verdicts.count(verdict)} {verdict}" for verdict in _TITLES if verdict in verdicts
    )
    about = shift["summary"]["federated"]
    if about["worst_site"] is None:
        return f"Of {len(verdicts)} hospitals: {counts}."
    return (
        f"Of {len(verdicts)} hospitals: {counts}. The model does worst at {about['worst_site']}: "
        f"a {shift['metric']} of {number(about['worst'])}, where the mean is "
        f"{number(about['mean'])}.{_hardly_learned(result, about['mean'])}"
    )


def _hardly_learned(result: Result, mean: float) -> str:
    """Return a warning where the model is what it was untrained, so that no verdict means much."""
    name = result["shift"]["metric"]
    before = ((result.get("initial") or {}).get("mean") or {}).get(name)
    if before is None:
        return ""
    gained = mean - before if higher_is_better(result, name) else before - mean
    if gained >= LEAST_GAIN:
        return ""
    return (
        f" But it has hardly learned anything: untrained it had {number(before)}. Whom it helps "
        "says little then."
    )


def matrix_rows(result: Result) -> list[Row]:
    """Return every model at every site, the federated one first."""
    shift = comparison(result)
    if shift is None:
        return []
    better = result["metrics"][shift["metric"]]["higher_is_better"]
    values = [c["value"] for of in shift["matrix"].values() for c in of.values()]
    ends = _ends(values, better)
    return [_row(shift, model, ends) for model in _models(shift)]


def _models(shift: Mapping[str, Any]) -> list[str]:
    order = [*(model for model in _ABOUT if model in shift["matrix"])]
    return order + sorted(set(shift["matrix"]) - set(order))


def overall_rows(result: Result) -> list[Overall]:
    """Return every model over all hospitals, in the order of the matrix."""
    shift = comparison(result)
    if shift is None:
        return []
    return [_overall(model, shift["summary"][model]) for model in _models(shift)]


def _overall(model: str, of: Mapping[str, Any]) -> Overall:
    return Overall(
        model=model,
        mean=of["mean"],
        worst=of["worst"],
        worst_site=of["worst_site"],
        spread=of["spread"],
        gap_to_pooled=of.get("gap_to_pooled"),
        sites=of["sites"],
    )


def agreement_sentence(result: Result) -> str:
    """Return how far the hospitals agree on which model is better; empty where it is not known."""
    found = (result.get("shift") or {}).get("concordance")
    if found is None:
        return ""
    return (
        f"How far the hospitals agree on which of these models is better: {number(found)}. It is 1 "
        "where all put the models in the same order, so that the best one is the best for each, "
        "and 0 where their orders have nothing in common (Kendall's W)."
    )


def subgroup_rows(result: Result) -> list[Row]:
    """Return the final model at every site by subgroup; empty where the study names none."""
    found = (result.get("shift") or {}).get("subgroups")
    if not found:
        return []
    values = [c["value"] for of in found.values() for c in of.values()]
    ends = _ends(values, higher_is_better(result, result["shift"]["metric"]))
    told, sites = result["shift"].get("subgroup_summary") or {}, result["shift"]["benefit"]
    rows = []
    for group, of in found.items():
        about, cells = told.get(group, {}), [_cell(of[site], ends) for site in sites]
        rows.append(Row(group, "", cells, about.get("mean"), about.get("worst")))
    return rows


def _ends(values: Iterable[float | None], better: bool) -> tuple[float, float]:
    known = [value for value in values if value is not None]
    ends = (min(known), max(known)) if known else (0.0, 1.0)
    return ends if better else (ends[1], ends[0])


def _row(shift: Mapping[str, Any], model: str, ends: tuple[float, float]) -> Row:
    about = _ABOUT.get(model) or f"the own model of {model.split('/', 1)[1]}, at every site"
    summary = shift["summary"][model]
    cells = [_cell(shift["matrix"][model][site], ends) for site in shift["benefit"]]
    return Row(model, about, cells, summary["mean"], summary["worst"])


def _cell(cell: Mapping[str, Any], ends: tuple[float, float]) -> Cell:
    if cell["value"] is None:
        return Cell(NOT_DEFINED, "", "", f"{cell['status']}: {cell.get('why', '')}", None)
    span = ends[1] - ends[0]
    shade = round(100 * (cell["value"] - ends[0]) / span) if span else 100
    known = cell["low"] is not None and cell["high"] is not None
    interval = f"{number(cell['low'])} to {number(cell['high'])}" if known else ""
    patients = f"{cell['n']} patient{'' if cell['n'] == 1 else 's'}"
    return Cell(number(cell["value"]), patients, interval, "", shade)
