"""What speaks against taking part with some data, and what should be looked at first."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from client.listing.listing import WAY_OUT, Listing
from client.manifest import Row
from client.preflight.facts import IMAGE, LABEL, Facts
from client.preflight.outliers import FURTHEST, outliers

STOP, WARNING = "stop", "warning"
STUDY = "study"
"""The kind of a finding that is of one study alone."""
_KINDS = {IMAGE: "unreadable", LABEL: "label"}


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that was found, with everything it was found at."""

    kind: str
    level: str
    """stop: do not take part before it is mended. warning: look at it."""
    text: str
    at: tuple[str, ...]
    """Images, relative to the root, or patients."""


def findings_of(
    root: Path, listing: Listing, facts: Sequence[Facts], for_study: bool
) -> list[Finding]:
    """Return all findings, those that stop first; what is found at many images is told once.

    for_study: whether the rows were held against a study.
    """
    found = [
        *_unreadable(root, facts),
        *_unsorted(root, listing),
        *_several_masks(root, listing),
        *_two_sides(facts),
        *_same_pixels(root, facts),
        *_without_target(root, listing, facts, for_study),
        *_missing_cells(facts),
        *_burned_in(root, facts),
        *_identifying(root, facts),
        *_outliers(root, facts),
    ]
    places: defaultdict[tuple[str, str, str], list[str]] = defaultdict(list)
    for one in sorted(found, key=lambda finding: finding.level != STOP):
        places[one.kind, one.level, one.text] += one.at
    return [
        Finding(kind=kind, level=level, text=text, at=tuple(at))
        for (kind, level, text), at in places.items()
    ]


def told(root: Path, path: Path) -> str:
    """Return a path as it is shown: relative to the root where it lies below it."""
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)


def _unreadable(root: Path, facts: Sequence[Facts]) -> Iterator[Finding]:
    for one in facts:
        error = one.error or one.misfit
        if error is not None:
            yield Finding(
                kind=STUDY if one.error is None else _KINDS[one.failed],
                level=STOP,
                text=f"{error.reason}; {error.remedy}",
                at=(told(root, error.path),),
            )


def _unsorted(root: Path, listing: Listing) -> Iterator[Finding]:
    for folder, count in listing.unsorted.items():
        yield Finding(
            kind="unsorted",
            level=STOP,
            text=f"{count} DICOM series lie in one folder or below it, so each file counts as an "
            "image; "
            "wardround-site import gives each series a folder",
            at=(told(root, folder),),
        )
    if listing.others:
        yield Finding(
            kind="passed over",
            level=WARNING,
            text="DICOM files that hold no image, such as reports",
            at=(f"{listing.others} files",),
        )


def _several_masks(root: Path, listing: Listing) -> Iterator[Finding]:
    for image, masks in listing.several.items():
        yield Finding(
            kind="several masks",
            level=STOP,
            text=f"an image with several masks, of which none was read; {WAY_OUT}",
            at=(f"{told(root, image)} ({', '.join(mask.name for mask in masks)})",),
        )


def _two_sides(facts: Sequence[Facts]) -> Iterator[Finding]:
    sides: defaultdict[str, set[str]] = defaultdict(set)
    for one in facts:
        sides[one.row.patient].add(one.row.split or "")
    both = sorted(patient for patient, of in sides.items() if len(of) > 1)
    if both:
        yield Finding(
            kind="two sides",
            level=STOP,
            text="patients with images both in train and in test (or in neither); put all images "
            "of a patient on one side",
            at=tuple(both),
        )


def _same_pixels(root: Path, facts: Sequence[Facts]) -> Iterator[Finding]:
    same: defaultdict[str, list[Row]] = defaultdict(list)
    for one in facts:
        if one.error is None:
            same[one.pixel_hash].append(one.row)
    for rows in same.values():
        if len(rows) < 2:
            continue
        people = len({row.patient for row in rows})
        yield Finding(
            kind="duplicate",
            level=STOP if people > 1 else WARNING,
            text=f"the same pixels under {people} patients; give them one patient, or keep one"
            if people > 1
            else "the same pixels twice of one patient; keep one",
            at=(" = ".join(told(root, row.image) for row in rows),),
        )


def _without_target(
    root: Path, listing: Listing, facts: Sequence[Facts], for_study: bool
) -> Iterator[Finding]:
    # A study that is named has its own finding of an image that it cannot use.
    without = [
        one.row
        for one in facts
        if one.row.mask is None and one.row.label is None and one.row.image not in listing.several
    ]
    if 0 < len(without) < len(facts):
        yield Finding(
            kind="missing",
            level=WARNING if for_study else STOP,
            text="images without a mask or a label, where others have one; only a study that "
            "learns from such images (task.unlabelled) takes them: it says so if it is named",
            at=tuple(told(root, row.image) for row in without),
        )


def _missing_cells(facts: Sequence[Facts]) -> Iterator[Finding]:
    for column in sorted({name for one in facts for name in one.row.covariates}):
        without = sorted({one.row.patient for one in facts if column not in one.row.covariates})
        if without:
            yield Finding(
                kind="missing", level=WARNING, text=f"no {column} of patients", at=tuple(without)
            )


def _burned_in(root: Path, facts: Sequence[Facts]) -> Iterator[Finding]:
    for one in facts:
        if one.letters or one.about.says_burned_in:
            seen = f"a line of {one.letters} letters was found" if one.letters else ""
            said = "the header says so" if one.about.says_burned_in else ""
            yield Finding(
                kind="burned-in text",
                level=WARNING,
                text=f"text in the pixels ({' and '.join(filter(None, (seen, said)))}); look at "
                "it, and black it out if it names anybody",
                at=(told(root, one.row.image),),
            )


def _identifying(root: Path, facts: Sequence[Facts]) -> Iterator[Finding]:
    for one in facts:
        if one.about.identifying:
            fields = one.about.identifying
            yield Finding(
                kind="identifying header",
                level=WARNING,
                text=f"{len(fields)} fields that may name a patient: {', '.join(fields)}",
                at=(told(root, one.row.image),),
            )


def _outliers(root: Path, facts: Sequence[Facts]) -> Iterator[Finding]:
    for name, one, score in outliers([one for one in facts if one.error is None]):
        yield Finding(
            kind="outlier",
            level=WARNING,
            text=f"unlike the others in {name} (robust z-score beyond {FURTHEST:g})",
            at=(f"{told(root, one.row.image)} ({score:+.1f})",),
        )
