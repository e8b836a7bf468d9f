"""The report's map: how far apart the sites' images are, and where the model does worse."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from server.report.reading import Result
from server.report.words import number

_ABOUT = {
    "intensity": "how bright the images are (Wasserstein; 1 is a standard deviation of an image)",
    "appearance": "where they are bright, in coarse blocks (1 is a standard deviation of an image)",
    "acquisition": "voxel size and matrix of the files (logarithms, without a unit)",
    "frechet": "how differently the model sees them (Fréchet distance, without a unit)",
    "mmd": "how differently the model sees them (maximum mean discrepancy, without a unit)",
    "label_shift": "what of it comes of other cases, as more lesions (features, without a unit)",
    "covariate_shift": "what of it comes of other images of like cases (features, without a unit)",
}


@dataclass(frozen=True)
class Place:
    """A site on the map."""

    site: str
    x: float
    y: float
    drop: float | None
    """By how much the model is worse there than the mean of the others."""


@dataclass(frozen=True)
class Table:
    """One measure between every two sites."""

    measure: str
    about: str
    rows: list[tuple[str, list[float | None]]]
    """By site, to every site in the same order; None to itself."""
    floor: float
    """What equal sites would show, through noise alone."""


def over_rounds(result: Result) -> tuple[list[str], list[tuple[str, list[float]]]]:
    """Return the measures, and by round their means over every two sites; none where not asked."""
    shift = result.get("shift") or {}
    found = shift.get("distance_mean_after") or {}
    measures = [measure for measure in _ABOUT if any(measure in of for of in found.values())]
    last = shift.get("distance_mean")
    rounds = {**found, **({str(len(result["rounds"])): last} if found and last else {})}
    # As text, 10 comes before 2.
    return measures, [(r, [rounds[r][m] for m in measures]) for r in sorted(rounds, key=int)]


def alarm_sentence(result: Result) -> str:
    """Return whose images changed during the study; empty where nobody told of them twice."""
    alarm = (result.get("shift") or {}).get("alarm")
    if not alarm:
        return ""
    rate = f"if no image changes, such an alarm comes in {100 * alarm['false_alarm_rate']:g} %"
    changed = [
        f"{site} after round {of['round']} (the first were told after round {of['since']})"
        for site, of in alarm["sites"].items()
        if of["round"] is not None
    ]
    if not changed:
        return (
            f"No site's images changed during the study, as far as this tells; {rate} of studies."
        )
    return (
        f"Images are no longer those that the study began with: {', '.join(changed)}. Was a "
        f"scanner or a protocol replaced there, or did patients join? By a cumulative sum (Page, "
        f"1954); {rate} of studies."
    )


def tables(result: Result) -> list[Table]:
    """Return a table a measure; none where the sites told nothing of their images."""
    distance = (result.get("shift") or {}).get("distance") or {}
    return [
        Table(
            measure,
            _ABOUT[measure],
            [(site, [distance[measure][site].get(other) for other in sites]) for site in sites],
            result["shift"]["floor"][measure],
        )
        for measure in _ABOUT
        if measure in distance and (sites := sorted(distance[measure]))
    ]


def places(result: Result) -> list[Place]:
    """Return the sites of the map; none where too few told how their images look."""
    shift = result.get("shift") or {}
    found = (shift.get("map") or {}).get("sites") or {}
    drops: Mapping[str, Any] = (shift.get("prediction") or {}).get("sites") or {}
    return [
        Place(site, of["x"], of["y"], drops.get(site, {}).get("drop"))
        for site, of in sorted(found.items())
    ]


def prediction_sentence(result: Result) -> str:
    """Return how well distance tells where the model does worse; empty where nothing is known."""
    told = (result.get("shift") or {}).get("prediction") or {}
    if not told.get("sites"):
        return ""
    return (
        "A straight line through the other sites predicts each site's drop from its distance to "
        f"them: {_score(told)}"
    )


def left_out_sentence(result: Result) -> str:
    """Return the same of models that had not seen the site; empty where nothing is known."""
    told = ((result.get("shift") or {}).get("left_out") or {}).get("prediction") or {}
    if not told.get("sites"):
        return ""
    return (
        "Could it have been known before, from its images alone? Neither the model nor the line "
        f"through the other sites had seen the site. Of the drops against these {_score(told)}"
    )


def _score(told: Mapping[str, Any]) -> str:
    return (
        f"{told['covered']} of {len(told['sites'])} lie in their 95 % interval. It is off by "
        f"{number(told['mean_error'])} on average; to expect no drop anywhere is off by "
        f"{number(told['mean_error_without'])}. {_what_distance_tells(told['sites'])}"
    )


def _what_distance_tells(sites: Mapping[str, Mapping[str, float]]) -> str:
    """Return whether the line is better than nothing, and whether one site alone makes it so."""
    gains = {s: abs(of["drop"]) - abs(of["predicted"] - of["drop"]) for s, of in sites.items()}
    if sum(gains.values()) <= 0:
        return "So distance does not tell here where the model does worse."
    most = max(gains, key=lambda site: gains[site])
    if sum(gains.values()) <= gains[most]:
        return f"So distance tells here that the model does worse at {most}, and no more than that."
    return "So distance tells something here of where the model does worse."
