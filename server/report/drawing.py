"""What all charts of the report have in common: matplotlib's SVG, coloured by the page.

The page's variables stand in the place of colours, so that charts follow dark mode.
"""

import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from markupsafe import escape
from matplotlib.figure import Figure

INK, FAINT, MEAN = "#010101", "#020202", "#030303"
OWN = tuple(f"#0401{index:02d}" for index in range(8))
"""Placeholders: matplotlib writes them, the page's variables take their place."""
VARIABLES = {
    INK: "var(--ink)",
    FAINT: "var(--faint)",
    MEAN: "var(--mean)",
    **{colour: f"var(--series-{index})" for index, colour in enumerate(OWN)},
}
DASHES = ("", "6 2", "2 2", "6 2 2 2")
LONGEST_NAME = 24
STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "wardround",
    "text.parse_math": False,
    "font.size": 9,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "xtick.color": INK,
    "ytick.color": INK,
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


def each(axes: Any, lines: Mapping[str, Points]) -> list[Key]:  # noqa: ANN401 - matplotlib
    """Draw every line in its own colour and dash; return their entries of the legend."""
    keys = []
    for index, (site, points) in enumerate(lines.items()):
        dash = DASHES[index % len(DASHES)]
        line(axes, points, OWN[index], dash, 1.4)
        keys.append(Key(short(site), VARIABLES[OWN[index]], dash))
    return keys


def crowd(
    axes: Any,  # noqa: ANN401 - matplotlib
    lines: Mapping[str, Points],
    extreme: tuple[str, str | None],
) -> list[Key]:
    """Draw many lines faintly, and one that is extreme by its name. extreme: what, and whose."""
    for points in lines.values():
        line(axes, points, FAINT, "", 0.8)
    keys = [Key(f"each of {len(lines)} sites", VARIABLES[FAINT])]
    word, site = extreme
    if site is not None and site in lines:
        line(axes, lines[site], OWN[1], DASHES[1], 1.6)
        keys.append(Key(f"{word} at the end: {short(site)}", VARIABLES[OWN[1]], DASHES[1]))
    return keys


def line(axes: Any, points: Points, colour: str, dash: str, width: float) -> None:  # noqa: ANN401
    """Draw a line, or a mark where it is one point."""
    style: Any = (0, tuple(float(part) for part in dash.split())) if dash else "-"
    marker = "o" if len(points) == 1 else None
    x, y = zip(*points, strict=True)
    axes.plot(x, y, color=colour, linestyle=style, linewidth=width, marker=marker, markersize=4)


def short(name: str) -> str:
    """Return a name that fits beside a mark."""
    return (
        name if len(name) <= LONGEST_NAME else name[: LONGEST_NAME - 1] + "\N{HORIZONTAL ELLIPSIS}"
    )


def svg(figure: Figure, name: str, about: str) -> str:
    """Return a figure as markup for a page. name: begins its identifiers; about: read out."""
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
    for placeholder, variable in VARIABLES.items():
        text = text.replace(placeholder, variable)
    return text.replace("<svg ", f'<svg role="img" aria-label="{escape(about)}" ', 1)
