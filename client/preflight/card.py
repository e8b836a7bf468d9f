"""A data card: what a preflight found, as one HTML file and as JSON, for the data officer."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from client.preflight.report import Report, Span
from common.secret_files import private_folder, replace_file

TEMPLATE = "card.html.jinja"
PAGE, DATA = "data-card.html", "data-card.json"
_SHOWN = 6
"""Values of a kind that a line names."""


def write_card(folder: Path, site: str, report: Report) -> Path:
    """Write both files, for their owner alone; return the page.

    Raises:
        OSError: the folder cannot be written.
    """
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = environment.get_template(TEMPLATE).render(
        site=site,
        report=report,
        lines=lines_of(report),
        day=datetime.now(UTC).date().isoformat(),
        version=version("wardround"),
    )
    private_folder(folder)
    replace_file(folder / PAGE, page.encode())
    replace_file(folder / DATA, (as_json(report) + "\n").encode())
    return folder / PAGE


def as_json(report: Report) -> str:
    """Return everything, for programs."""
    return json.dumps(asdict(report), indent=2, sort_keys=True, allow_nan=False)


def lines_of(report: Report) -> list[tuple[str, str]]:
    """Return what a person reads of the data, as pairs of a name and some words."""
    lines = [
        ("patients", _many(report.patients, report.sides)),
        ("images", _images(report)),
        ("size (voxels)", _counted(report.sizes)),
    ]
    lines += [
        (f"spacing of axis {axis} (mm)", _span(span)) for axis, span in enumerate(report.spacing_mm)
    ]
    lines += [
        ("stored orientation", _counted(report.orientations)),
        ("grey values, 1st hundredth", _span(report.darkest)),
        ("grey values, 99th hundredth", _span(report.brightest)),
    ]
    unit = "ml" if len(report.spacing_mm) == 3 else "mm2"
    for value, label in report.labels.items():
        lines.append((f"label {value}", f"{label.images} images, {_span(label.volume)} {unit}"))
    if report.classes:
        lines.append(("classes", _counted(report.classes)))
    lines += [
        ("modality", _counted(report.modalities)),
        ("scanner", _counted(report.scanners)),
        ("field strength (T)", _counted(report.field_t)),
    ]
    return lines + _cost_lines(report)


def _images(report: Report) -> str:
    unfit = f", and {report.unfit} do not fit the study" if report.unfit else ""
    return f"{report.images}, of which {report.read} could be read{unfit}"


def _cost_lines(report: Report) -> list[tuple[str, str]]:
    cost = report.cost
    if cost is None:
        return []
    kind = "private, at once at most" if cost.private else "batch of"
    return [
        (f"a round of {cost.study}", f"{cost.steps} steps, about {cost.minutes:.1f} minutes"),
        ("memory of training", f"about {cost.memory_mb:.0f} MB ({kind} {cost.physical_batch})"),
    ]


def _many(count: int, parts: Mapping[str, int]) -> str:
    return f"{count} ({_counted(parts)})" if parts else str(count)


def _counted(counts: Mapping[str, int]) -> str:
    shown = [f"{value}: {count}" for value, count in list(counts.items())[:_SHOWN]]
    rest = len(counts) - len(shown)
    return ", ".join([*shown, f"and {rest} more"] if rest else shown) or "-"


def _span(span: Span | None) -> str:
    if span is None:
        return "-"
    if span.least == span.most:
        return f"{span.least:.4g}"
    return f"{span.least:.4g} to {span.most:.4g} (median {span.median:.4g})"
