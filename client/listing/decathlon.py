"""The dataset.json of the Medical Segmentation Decathlon, and MONAI's data lists.

Antonelli et al., Nature Communications 13, 2022.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from client.manifest import Row
from client.readers.registry import stem

NAME = "dataset.json"
_PARTS = {"training": "train", "validation": "test", "test": "test", "testing": "test"}
_OWN = ("image", "label", "patient", "subject")


def decathlon_rows(path: Path) -> list[Row]:
    """Return the rows of a dataset.json; images without a label are left out where others have one.

    The parts are sides of the split where more than one of them has labels. The patient is the
    entry's `patient` or `subject`, else the image's name without its ending.

    Raises:
        ValueError: it cannot be read, or an entry names no image, or several as one.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} cannot be read as JSON ({error}); correct it") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} is no list of data; it must name its parts, such as training")
    found = [
        (side, _row(path, entry, side))
        for part, side in _PARTS.items()
        for entry in _entries(path, content, part)
    ]
    labelled = [(side, row) for side, row in found if row.mask is not None or row.label is not None]
    kept = labelled or found
    if not kept:
        raise ValueError(f"{path} lists no image under {', '.join(_PARTS)}; correct it")
    sides = len({side for side, _ in kept}) > 1
    return [row if sides else _without_side(row) for _, row in kept]


def label_names(path: Path) -> Mapping[int, str]:
    """Return the names of the label values that a dataset.json tells."""
    try:
        told = json.loads(path.read_text(encoding="utf-8")).get("labels", {})
        # Later lists of MONAI and nnU-Net have it the other way round.
        pairs = [(k, v) if str(k).isdigit() else (v, k) for k, v in told.items()]
        return {int(value): str(name) for value, name in pairs}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def _entries(path: Path, content: Mapping[str, Any], part: str) -> Iterator[Mapping[str, Any]]:
    listed = content.get(part, [])
    if not isinstance(listed, Sequence) or isinstance(listed, str):
        raise ValueError(f"{path}: {part} must be a list of images")
    for entry in listed:
        yield entry if isinstance(entry, Mapping) else {"image": entry}


def _row(path: Path, entry: Mapping[str, Any], side: str) -> Row:
    image, label = entry.get("image"), entry.get("label")
    if not isinstance(image, str):
        what = "several images as channels" if isinstance(image, list) else "no image"
        raise ValueError(f"{path} has an entry with {what} ({image!r}); list one image an entry")
    file = path.parent / image
    is_file = isinstance(label, str) and stem(Path(label)) != label
    others = {name: value for name, value in entry.items() if name not in _OWN}
    return Row(
        image=file,
        mask=path.parent / str(label) if is_file else None,
        label=None if is_file or label is None else str(label),
        patient=str(entry.get("patient") or entry.get("subject") or stem(file)),
        split=side,
        covariates={
            name: str(value)
            for name, value in others.items()
            if isinstance(value, str | int | float)
        },
    )


def _without_side(row: Row) -> Row:
    return Row(
        image=row.image,
        mask=row.mask,
        label=row.label,
        patient=row.patient,
        covariates=row.covariates,
    )
