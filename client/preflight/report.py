"""A preflight: a site's data read whole, counted, and judged; nothing of it leaves the site."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from client.listing.folder import listing_of
from client.manifest import Row
from client.preflight.cost import Cost
from client.preflight.facts import Facts, facts_of
from client.preflight.findings import STOP, STUDY, Finding, findings_of
from common.contract import RefusalError

GO, NO_GO = "go", "no-go"
UNKNOWN = "not told"


@dataclass(frozen=True, kw_only=True)
class Span:
    """Some numbers, as least, middle and most."""

    least: float
    median: float
    most: float


@dataclass(frozen=True, kw_only=True)
class Label:
    """One label value over all images that have it."""

    images: int
    volume: Span
    """In ml; of flat images an area in mm2."""


@dataclass(frozen=True, kw_only=True)
class Report:
    """What a data set is like. Counts are of images that could be read, unless they say else."""

    root: str
    verdict: str
    """go, or no-go where a finding stops."""
    patients: int
    """Of all rows."""
    images: int
    """Of all rows."""
    read: int
    unfit: int
    """Of what could be read, images that the named study cannot use."""
    sides: Mapping[str, int]
    """Patients of each side of a stated split."""
    sizes: Mapping[str, int]
    spacing_mm: tuple[Span, ...]
    """Of each axis."""
    orientations: Mapping[str, int]
    darkest: Span | None
    """Over images, the 1st hundredth of the grey values; `brightest` is the 99th."""
    brightest: Span | None
    labels: Mapping[str, Label]
    """By label value of the masks."""
    classes: Mapping[str, int]
    """Images of each label of the manifest."""
    modalities: Mapping[str, int]
    scanners: Mapping[str, int]
    field_t: Mapping[str, int]
    findings: tuple[Finding, ...]
    cost: Cost | None
    """What a round of the named study takes here; None where none was named."""


def preflight(
    root: Path,
    each: Callable[[Sequence[Row]], Iterable[Row]] = lambda rows: rows,
    cost_of: Callable[[Sequence[Facts]], Cost | None] | None = None,
    mask_pattern: str = "*",
    check: Callable[[Row], object] | None = None,
) -> Report:
    """Read all rows of a manifest or a folder, one image in memory at a time.

    each: goes through the rows, such as a progress bar. cost_of: of what could be read and fits.
    mask_pattern: of the masks' names, where a folder without a manifest has several of an image.
    check: as facts_of has it; None where no study is named.

    Raises:
        ValueError: there are no rows, or the manifest cannot be read.
    """
    listing = listing_of(root, mask_pattern)
    facts = [facts_of(row, check) for row in each(listing.rows)]
    folder = root if root.is_dir() else root.parent
    read = [one for one in facts if one.error is None]
    fit = [one for one in read if one.misfit is None]
    cost, refused = _cost_of(fit, cost_of)
    findings = [*refused, *findings_of(folder, listing, facts, for_study=check is not None)]
    stops = any(finding.level == STOP for finding in findings)
    axes = max((len(one.spacing_mm) for one in read), default=0)
    return Report(
        root=str(root),
        verdict=NO_GO if stops else GO,
        patients=len({row.patient for row in listing.rows}),
        images=len(listing.rows),
        read=len(read),
        unfit=len(read) - len(fit),
        sides=_sides(listing.rows),
        sizes=_counts(" x ".join(str(n) for n in one.size) for one in read),
        spacing_mm=tuple(
            _span([one.spacing_mm[axis] for one in read if axis < len(one.spacing_mm)])
            for axis in range(axes)
        ),
        orientations=_counts(one.about.orientation or UNKNOWN for one in read),
        darkest=_span([one.low for one in read]) if read else None,
        brightest=_span([one.high for one in read]) if read else None,
        labels=_labels(read),
        classes=_counts(one.row.label for one in read if one.row.label is not None),
        modalities=_counts(one.about.modality or UNKNOWN for one in read),
        scanners=_counts(_known(one, one.about.scanner, "scanner") for one in read),
        field_t=_counts(_known(one, one.about.field_t, "field_t") for one in read),
        findings=tuple(findings),
        cost=cost,
    )


def _cost_of(
    read: Sequence[Facts], cost_of: Callable[[Sequence[Facts]], Cost | None] | None
) -> tuple[Cost | None, list[Finding]]:
    """Return what a study takes, or why it cannot run on this data."""
    if cost_of is None or not read:
        return None, []
    try:
        return cost_of(read), []
    except (RefusalError, ValueError) as error:
        return None, [Finding(kind=STUDY, level=STOP, text=str(error), at=())]


def _known(one: Facts, in_header: str, column: str) -> str:
    """Return what the header tells, or else the manifest."""
    return in_header or one.row.covariates.get(column, UNKNOWN)


def _sides(rows: Sequence[Row]) -> dict[str, int]:
    sides = {(row.patient, row.split) for row in rows if row.split is not None}
    return _counts(side for _, side in sides)


def _counts(values: Iterable[str | None]) -> dict[str, int]:
    """Return how often each value is there, the most frequent first."""
    counts = Counter(str(value) for value in values)
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def _span(values: Sequence[float]) -> Span:
    return Span(least=float(min(values)), median=float(np.median(values)), most=float(max(values)))


def _labels(facts: Sequence[Facts]) -> dict[str, Label]:
    found: dict[str, Label] = {}
    for value in sorted({value for one in facts for value in one.labels}):
        volumes = [one.labels[value] for one in facts if value in one.labels]
        found[str(value)] = Label(images=len(volumes), volume=_span(volumes))
    return found
