"""A manifest written from what a folder holds."""

import csv
import io
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from client.listing.decathlon import NAME, label_names
from client.listing.folder import found_in
from client.listing.listing import WAY_OUT, Listing
from client.listing.renamed import chosen, relabelled, sequences_of
from client.manifest import Row, stated_sides
from client.mapping import Names
from common.data_config import SEQUENCE
from common.secret_files import replace_file
from common.system_errors import check_writable

MASKS = "masks-of-study"
_TOLD = 10
"""Images that an error spells out."""
_FIRST = ("image", "mask", "label", "patient", "split")


@dataclass(frozen=True, kw_only=True)
class Written:
    """What a manifest has of what was found."""

    rows: Sequence[Row]
    found: int
    """Images in the folder; those whose sequence the mapping does not name are left out."""
    unsorted: int
    """Folders in which several DICOM series lie together."""


def write_manifest(
    root: Path,
    target: Path,
    names: Names,
    each: Callable[[Sequence[Row]], Iterable[Row]] = lambda rows: rows,
) -> Written:
    """Write a CSV manifest of a folder's images, under the study's names.

    Masks whose labels have other values in the study are written anew, beside the manifest. Both
    are for their owner alone: of DICOM that is not de-identified the patients are their numbers.

    Raises:
        ValueError: nothing found, no sequence that the mapping names, images with several masks, a
            label that it does not list, a patient on two sides.
        OSError: it cannot be written, which is seen before anything is read.
    """
    check_writable(target.parent)
    listing = found_in(root, names.mask)
    rows = chosen(listing.rows, names)
    if not rows:
        there = ", ".join(repr(name) for name in sequences_of(listing.rows)) or "none"
        raise ValueError(f"the mapping names no sequence of {root}; its sequences are: {there}")
    _check_masks(rows, listing)
    words = label_names(root if root.is_file() else root / NAME)
    folder = target.parent / MASKS
    rows = [relabelled(row, names, words, folder) for row in each(rows)]
    stated_sides(rows)
    target.parent.mkdir(parents=True, exist_ok=True)
    replace_file(target, _table(rows, target.parent.resolve()).encode())
    return Written(rows=rows, found=len(listing.rows), unsorted=len(listing.unsorted))


def _check_masks(rows: Sequence[Row], listing: Listing) -> None:
    """Raise ValueError that names all images with several masks."""
    images = [row.image for row in rows if row.image in listing.several]
    if images:
        told = "; ".join(
            f"{image}: {', '.join(mask.name for mask in listing.several[image])}"
            for image in images[:_TOLD]
        )
        more = f"; and {len(images) - _TOLD} more" if len(images) > _TOLD else ""
        raise ValueError(
            f"{len(images)} of {len(rows)} images have several masks ({told}{more}); {WAY_OUT}"
        )


def _table(rows: Sequence[Row], folder: Path) -> str:
    names = {name for row in rows for name in row.covariates} - set(_FIRST)
    covariates = sorted(name for name in names if not name.startswith(SEQUENCE))
    # A table of the site's own may have columns of these names too: the manifest's count.
    lines = [{**row.covariates, **_cells(row, folder)} for row in rows]
    used = [name for name in (*_FIRST, *covariates) if any(line.get(name) for line in lines)]
    text = io.StringIO()
    writer = csv.DictWriter(text, used, restval="", extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return text.getvalue()


def _cells(row: Row, folder: Path) -> dict[str, str]:
    return {
        "image": _told(row.image, folder),
        "mask": "" if row.mask is None else _told(row.mask, folder),
        "label": row.label or "",
        "patient": row.patient,
        "split": row.split or "",
    }


def _told(path: Path, folder: Path) -> str:
    """Return a path relative to the manifest where it lies below it, else whole."""
    path = path.resolve()
    return path.relative_to(folder).as_posix() if path.is_relative_to(folder) else str(path)
