"""The report's charts of the final model: every site with its interval, reliability, the map."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from server.report.apart import Place
from server.report.drawing import (
    FAINT,
    MEAN,
    OWN,
    STYLE,
    VARIABLES,
    Chart,
    Key,
    crowd,
    each,
    line,
    short,
    svg,
)
from server.report.labels import sides_of
from server.report.reading import Result, estimate, estimates, higher_is_better

_MARKERS = {"pooled": "D", "local": "x", "ensemble": "^"}


def site_intervals(result: Result) -> Chart | None:
    """Draw the final model at every site with its 95 % interval, the worst site first.

    Baselines at the same site are marks beside it. None where nothing was evaluated.
    """
    headline = result["headline"]
    final = {site: estimate(of, headline) for site, of in estimates(result, "final").items()}
    final = {site: of for site, of in final.items() if of["value"] is not None}
    if not final:
        return None
    sign = 1 if higher_is_better(result, headline) else -1
    order = sorted(final, key=lambda site: sign * final[site]["value"])
    row = 0.24 if len(order) <= 2 * len(OWN) else 0.18
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(4.4, 0.9 + row * len(order)), layout="constrained")
        axes = figure.subplots()
        keys = [Key("federated, 95 % interval", VARIABLES[MEAN], width=3)]
        _bars(axes, [final[site] for site in order])
        for index, name in enumerate(sorted(result.get("baselines") or {})):
            marks = _marks(result["baselines"][name], order, headline)
            if marks and name in _MARKERS:
                colour = OWN[index + 1]
                x, y = zip(*marks, strict=True)
                axes.scatter(x, y, marker=_MARKERS[name], color=colour, s=22, zorder=3)
                keys.append(Key(name, VARIABLES[colour], marker=_MARKERS[name]))
        axes.set_yticks(range(len(order)), [short(site) for site in order])
        axes.invert_yaxis()
        axes.margins(y=0.5 / len(order))
        axes.grid(axis="x", color=FAINT, linewidth=0.4)
        axes.set_xlabel(headline)
        title = f"{headline} by site with intervals"
        return Chart(svg(figure, "intervals", title), tuple(keys), title)


def reliability_curves(result: Result) -> Chart | None:
    """Draw every site's share of right answers over the confidence; None where none was told."""
    found = (result.get("shift") or {}).get("reliability") or {}
    lines = {
        site: [(point["confidence"], point["accuracy"]) for point in curve]
        for site, curve in found.items()
    }
    if not lines:
        return None
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(4.4, 3.2), layout="constrained")
        axes = figure.subplots()
        many = len(lines) > len(OWN)
        keys = crowd(axes, lines, ("", None)) if many else each(axes, lines)
        line(axes, [(0.0, 0.0), (1.0, 1.0)], MEAN, "1 2", 1.0)
        keys.append(Key("as sure as it is right", VARIABLES[MEAN], "1 2"))
        low = min(min(point) for points in lines.values() for point in points)
        axes.set_xlim(max(low - 0.05, 0), 1.02)
        axes.set_ylim(max(low - 0.05, 0), 1.02)
        axes.grid(color=FAINT, linewidth=0.4)
        axes.set_xlabel("confidence")
        axes.set_ylabel("share of right answers")
        title = "right answers over confidence"
        return Chart(svg(figure, "reliability", title), tuple(keys), title)


def site_map(sites: Sequence[Place]) -> Chart | None:
    """Draw the sites as far apart as their images are; a fuller mark is a larger drop."""
    if not sites:
        return None
    drops = [max(site.drop or 0.0, 0.0) for site in sites]
    most = max(drops) or 1.0
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(4.4, 3.2), layout="constrained")
        axes = figure.subplots()
        for site, drop in zip(sites, drops, strict=True):
            axes.plot([site.x], [site.y], "o", color=MEAN, markersize=11, alpha=drop / most)
            axes.plot([site.x], [site.y], "o", color=MEAN, markersize=11, fillstyle="none")
        axes.set_aspect("equal", "datalim")
        axes.margins(0.25)
        axes.grid(color=FAINT, linewidth=0.4)
        _name_marks(figure, axes, sites)
        known = any(site.drop is not None for site in sites)
        key = Key(f"fuller: a larger drop, {max(drops):.3f} at most", VARIABLES[MEAN], width=6)
        about = "sites as far apart as their images are"
        return Chart(svg(figure, "map", about), (key,) if known else (), about)


def _name_marks(figure: Figure, axes: Any, sites: Sequence[Place]) -> None:  # noqa: ANN401 - matplotlib
    # Where the marks lie on the paper is known when all is laid out.
    figure.draw_without_rendering()
    points = 72 / figure.dpi
    frame = axes.get_window_extent().extents * points
    marks = [tuple(axes.transData.transform((s.x, s.y)) * points) for s in sites]
    names, size = [short(s.site) for s in sites], float(mpl.rcParams["font.size"])
    for site, name, side in zip(sites, names, sides_of(marks, names, size, frame), strict=True):
        axes.annotate(
            name,
            (site.x, site.y),
            (side.right, side.up),
            textcoords="offset points",
            ha=side.horizontal,
            va=side.vertical,
        )


def _bars(axes: Any, values: Sequence[Mapping[str, Any]]) -> None:  # noqa: ANN401 - matplotlib
    numbers: list[float] = []
    for row, of_site in enumerate(values):
        value, low, high = of_site["value"], of_site["low"], of_site["high"]
        axes.barh(row, value, height=0.62, color=FAINT, linewidth=0)
        axes.plot([value], [row], "o", color=MEAN, markersize=4)
        numbers.append(value)
        if low is not None and high is not None:
            axes.plot([low, high], [row, row], color=MEAN, linewidth=1.6)
            numbers += [low, high]
    if min(numbers) >= 0 and max(numbers) <= 1:
        axes.set_xlim(0, 1.02)


def _marks(
    baseline: Mapping[str, Any], order: Sequence[str], metric: str
) -> list[tuple[float, int]]:
    of_sites = baseline.get("sites") or {}
    values = [(estimate(of_sites.get(site), metric)["value"], y) for y, site in enumerate(order)]
    return [(value, y) for value, y in values if value is not None]
