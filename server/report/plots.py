"""The report's charts: matplotlib's SVG, coloured by the page so that they follow dark mode."""

import io
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import matplotlib as mpl
from markupsafe import escape
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from server.report.apart import Place
from server.report.labels import sides_of
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

_INK, _FAINT, _MEAN = "#010101", "#020202", "#030303"
_OWN = tuple(f"#0401{index:02d}" for index in range(8))
"""Placeholders: matplotlib writes them, the page's variables take their place."""
_VARIABLES = {
    _INK: "var(--ink)",
    _FAINT: "var(--faint)",
    _MEAN: "var(--mean)",
    **{colour: f"var(--series-{index})" for index, colour in enumerate(_OWN)},
}
_DASHES = ("", "6 2", "2 2", "6 2 2 2")
_MARKERS = {"pooled": "D", "local": "x", "ensemble": "^"}
_LONGEST_NAME = 24
CALIBRATION = "ece"
_STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "wardround",
    "text.parse_math": False,
    "font.size": 9,
    "text.color": _INK,
    "axes.labelcolor": _INK,
    "axes.edgecolor": _INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "path.simplify": True,
}


Points = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Key:
    """One entry of a chart's legend."""

    label: str
    colour: str
    """CSS."""
    dash: str = ""
    """stroke-dasharray."""
    marker: str = ""
    """D, x or ^ for a baseline; empty for a line."""
    width: float = 1.6


@dataclass(frozen=True)
class Chart:
    """A chart as markup that is safe to include."""

    svg: str
    keys: tuple[Key, ...]
    title: str
    """What it shows, as it is read out."""
    lines: Mapping[str, Points] = field(default_factory=dict)
    """Of a chart over the rounds: each site's points."""


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
    row = 0.24 if len(order) <= 2 * len(_OWN) else 0.18
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(4.4, 0.9 + row * len(order)), layout="constrained")
        axes = figure.subplots()
        keys = [Key("federated, 95 % interval", _VARIABLES[_MEAN], width=3)]
        _bars(axes, [final[site] for site in order])
        for index, name in enumerate(sorted(result.get("baselines") or {})):
            marks = _marks(result["baselines"][name], order, headline)
            if marks and name in _MARKERS:
                colour = _OWN[index + 1]
                x, y = zip(*marks, strict=True)
                axes.scatter(x, y, marker=_MARKERS[name], color=colour, s=22, zorder=3)
                keys.append(Key(name, _VARIABLES[colour], marker=_MARKERS[name]))
        axes.set_yticks(range(len(order)), [_short(site) for site in order])
        axes.invert_yaxis()
        axes.margins(y=0.5 / len(order))
        axes.grid(axis="x", color=_FAINT, linewidth=0.4)
        axes.set_xlabel(headline)
        title = f"{headline} by site with intervals"
        return Chart(_svg(figure, "intervals", title), tuple(keys), title)


def reliability_curves(result: Result) -> Chart | None:
    """Draw every site's share of right answers over the confidence; None where none was told."""
    found = (result.get("shift") or {}).get("reliability") or {}
    lines = {
        site: [(point["confidence"], point["accuracy"]) for point in curve]
        for site, curve in found.items()
    }
    if not lines:
        return None
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(4.4, 3.2), layout="constrained")
        axes = figure.subplots()
        many = len(lines) > len(_OWN)
        keys = _crowd(axes, lines, ("", None)) if many else _each(axes, lines)
        _line(axes, [(0.0, 0.0), (1.0, 1.0)], _MEAN, "1 2", 1.0)
        keys.append(Key("as sure as it is right", _VARIABLES[_MEAN], "1 2"))
        low = min(min(point) for points in lines.values() for point in points)
        axes.set_xlim(max(low - 0.05, 0), 1.02)
        axes.set_ylim(max(low - 0.05, 0), 1.02)
        axes.grid(color=_FAINT, linewidth=0.4)
        axes.set_xlabel("confidence")
        axes.set_ylabel("share of right answers")
        title = "right answers over confidence"
        return Chart(_svg(figure, "reliability", title), tuple(keys), title)


def site_map(sites: Sequence[Place]) -> Chart | None:
    """Draw the sites as far apart as their images are; a fuller mark is a larger drop."""
    if not sites:
        return None
    drops = [max(site.drop or 0.0, 0.0) for site in sites]
    most = max(drops) or 1.0
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(4.4, 3.2), layout="constrained")
        axes = figure.subplots()
        for site, drop in zip(sites, drops, strict=True):
            axes.plot([site.x], [site.y], "o", color=_MEAN, markersize=11, alpha=drop / most)
            axes.plot([site.x], [site.y], "o", color=_MEAN, markersize=11, fillstyle="none")
        axes.set_aspect("equal", "datalim")
        axes.margins(0.25)
        axes.grid(color=_FAINT, linewidth=0.4)
        _name_marks(figure, axes, sites)
        known = any(site.drop is not None for site in sites)
        key = Key(f"fuller: a larger drop, {max(drops):.3f} at most", _VARIABLES[_MEAN], width=6)
        about = "sites as far apart as their images are"
        return Chart(_svg(figure, "map", about), (key,) if known else (), about)


def _name_marks(figure: Figure, axes: Any, sites: Sequence[Place]) -> None:  # noqa: ANN401 - matplotlib
    # Where the marks lie on the paper is known when all is laid out.
    figure.draw_without_rendering()
    points = 72 / figure.dpi
    frame = axes.get_window_extent().extents * points
    marks = [tuple(axes.transData.transform((s.x, s.y)) * points) for s in sites]
    names, size = [_short(s.site) for s in sites], float(mpl.rcParams["font.size"])
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
        axes.barh(row, value, height=0.62, color=_FAINT, linewidth=0)
        axes.plot([value], [row], "o", color=_MEAN, markersize=4)
        numbers.append(value)
        if low is not None and high is not None:
            axes.plot([low, high], [row, row], color=_MEAN, linewidth=1.6)
            numbers += [low, high]
    if min(numbers) >= 0 and max(numbers) <= 1:
        axes.set_xlim(0, 1.02)


def _marks(
    baseline: Mapping[str, Any], order: Sequence[str], metric: str
) -> list[tuple[float, int]]:
    of_sites = baseline.get("sites") or {}
    values = [(estimate(of_sites.get(site), metric)["value"], y) for y, site in enumerate(order)]
    return [(value, y) for value, y in values if value is not None]


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
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(4.4, 2.9), layout="constrained")
        axes = figure.subplots()
        many = len(lines) > len(_OWN)
        keys = _crowd(axes, lines, extreme) if many else _each(axes, lines)
        if with_mean:
            _line(axes, _mean_line(lines.values()), _MEAN, "", 2.6)
            keys.append(Key("mean of the sites", _VARIABLES[_MEAN], width=3))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(color=_FAINT, linewidth=0.4)
        axes.set_xlabel("rounds of training")
        axes.set_ylabel(label)
        title = f"{label} over the rounds"
        return Chart(_svg(figure, name, title), tuple(keys), title, lines)


def _each(axes: Any, lines: Mapping[str, Points]) -> list[Key]:  # noqa: ANN401 - matplotlib
    keys = []
    for index, (site, points) in enumerate(lines.items()):
        dash = _DASHES[index % len(_DASHES)]
        _line(axes, points, _OWN[index], dash, 1.4)
        keys.append(Key(_short(site), _VARIABLES[_OWN[index]], dash))
    return keys


def _crowd(
    axes: Any,  # noqa: ANN401 - matplotlib
    lines: Mapping[str, Points],
    extreme: tuple[str, str | None],
) -> list[Key]:
    for points in lines.values():
        _line(axes, points, _FAINT, "", 0.8)
    keys = [Key(f"each of {len(lines)} sites", _VARIABLES[_FAINT])]
    word, site = extreme
    if site is not None and site in lines:
        _line(axes, lines[site], _OWN[1], _DASHES[1], 1.6)
        keys.append(Key(f"{word} at the end: {_short(site)}", _VARIABLES[_OWN[1]], _DASHES[1]))
    return keys


def _line(axes: Any, points: Points, colour: str, dash: str, width: float) -> None:  # noqa: ANN401
    style: Any = (0, tuple(float(part) for part in dash.split())) if dash else "-"
    marker = "o" if len(points) == 1 else None
    x, y = zip(*points, strict=True)
    axes.plot(x, y, color=colour, linestyle=style, linewidth=width, marker=marker, markersize=4)


def _mean_line(lines: Iterable[Points]) -> Points:
    by_round: dict[float, list[float]] = {}
    for x, y in (point for points in lines for point in points):
        by_round.setdefault(x, []).append(y)
    means = {x: mean(values) for x, values in sorted(by_round.items())}
    return [(x, y) for x, y in means.items() if y is not None and math.isfinite(y)]


def _short(name: str) -> str:
    return (
        name
        if len(name) <= _LONGEST_NAME
        else name[: _LONGEST_NAME - 1] + "\N{HORIZONTAL ELLIPSIS}"
    )


def _svg(figure: Figure, name: str, about: str) -> str:
    file = io.StringIO()
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    figure.savefig(file, format="svg", transparent=True, metadata=nothing)
    text = file.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r"<!--.*?-->\s*", "", text, flags=re.DOTALL)
    text = re.sub(r' xmlns(:xlink)?="[^"]*"', "", text).replace("xlink:href", "href")
    # Several charts share one page: their identifiers must not meet.
    text = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{name}-", text)
    for placeholder, variable in _VARIABLES.items():
        text = text.replace(placeholder, variable)
    return text.replace("<svg ", f'<svg role="img" aria-label="{escape(about)}" ', 1)
