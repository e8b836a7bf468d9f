"""The report's charts over the rounds: the metric, its calibration, the benefit, epsilon."""

import math
from collections.abc import Iterable, Mapping

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from server.report.drawing import (
    FAINT,
    MEAN,
    OWN,
    STYLE,
    VARIABLES,
    Chart,
    Key,
    Points,
    crowd,
    each,
    line,
    svg,
)
from server.report.reading import (
    Result,
    before,
    epsilon_after,
    estimate,
    estimates,
    higher_is_better,
    last_exposure,
    mean,
    site_names,
)

CALIBRATION = "ece"


def headline_curves(result: Result) -> Chart | None:
    """Draw the headline metric at every site, and its mean, over the rounds of training done.

    A round's "before" is the model after the rounds before it; the last point is the final model.
    None where nothing was evaluated.
    """
    headline = result["headline"]
    worst = ((result.get("final") or {}).get("worst_site") or {}).get(headline)
    word = "lowest" if higher_is_better(result, headline) else "highest"
    unit = result["metrics"][headline].get("unit")
    label = f"{headline} ({unit})" if unit else headline
    lines = _over_rounds(result, headline)
    return _curves("curves", lines, label, (word, worst), with_mean=True)


def calibration_curves(result: Result) -> Chart | None:
    """Draw every site's calibration error over the rounds; None where nobody told one."""
    if CALIBRATION not in result["metrics"]:
        return None
    worst = ((result.get("final") or {}).get("worst_site") or {}).get(CALIBRATION)
    lines = _over_rounds(result, CALIBRATION)
    label = "expected calibration error"
    return _curves("calibration", lines, label, ("highest", worst), with_mean=True)


def benefit_curves(result: Result) -> Chart | None:
    """Draw by how much the model beats each site's own over the rounds; None where not known."""
    found = (result.get("shift") or {}).get("benefit_after") or {}
    sites = sorted({site for of in found.values() for site in of})
    numbers = sorted(found, key=int)
    lines = {s: [(int(n), found[n][s]) for n in numbers if s in found[n]] for s in sites}
    last = {site: points[-1][1] for site, points in lines.items()}
    least = min(last, key=lambda site: last[site], default=None)
    label = "benefit of joining"
    return _curves("benefit", lines, label, ("lowest", least), with_mean=True)


def _over_rounds(result: Result, metric: str) -> dict[str, Points]:
    """Return by site the metric of the model after so many rounds."""
    rounds = result["rounds"]
    lines: dict[str, Points] = {}
    for site in site_names(result):
        found = {r["round"] - 1: before(r, site, metric) for r in rounds}
        if found.get(0) is None:
            found[0] = estimate(estimates(result, "initial").get(site), metric)["value"]
        if rounds:
            last = estimate(estimates(result, "final").get(site), metric)["value"]
            found[rounds[-1]["round"]] = last
        lines[site] = [(x, y) for x, y in sorted(found.items()) if y is not None]
    return lines


def epsilon_curves(result: Result) -> Chart | None:
    """Draw every site's epsilon after each round; None without differential privacy."""
    lines = {
        site: [
            (r["round"], e) for r in result["rounds"] if (e := epsilon_after(r, site)) is not None
        ]
        for site in site_names(result)
    }
    exposure = last_exposure(result)
    most = ("highest", exposure[0] if exposure else None)
    return _curves("epsilon", lines, "epsilon spent", most, with_mean=False)


def _curves(
    name: str,
    lines: Mapping[str, Points],
    label: str,
    extreme: tuple[str, str | None],
    *,
    with_mean: bool,
) -> Chart | None:
    """Draw lines: each in its own colour and dash, or faint with one named where there are many."""
    lines = {site: points for site, points in lines.items() if points}
    if not lines:
        return None
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(4.4, 2.9), layout="constrained")
        axes = figure.subplots()
        many = len(lines) > len(OWN)
        keys = crowd(axes, lines, extreme) if many else each(axes, lines)
        if with_mean:
            line(axes, _mean_line(lines.values()), MEAN, "", 2.6)
            keys.append(Key("mean of the sites", VARIABLES[MEAN], width=3))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(color=FAINT, linewidth=0.4)
        axes.set_xlabel("rounds of training")
        axes.set_ylabel(label)
        title = f"{label} over the rounds"
        return Chart(svg(figure, name, title), tuple(keys), title, lines)


def _mean_line(lines: Iterable[Points]) -> Points:
    by_round: dict[float, list[float]] = {}
    for x, y in (point for points in lines for point in points):
        by_round.setdefault(x, []).append(y)
    means = {x: mean(values) for x, values in sorted(by_round.items())}
    return [(x, y) for x, y in means.items() if y is not None and math.isfinite(y)]
