"""A site's rows under the study's names: sequences chosen, classes renamed, masks relabelled."""

import gzip
import hashlib
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from client.manifest import Row
from client.mapping import Names
from client.readers import BadFileError, Picture, read_image, read_mask
from client.readers.registry import names_of_mask
from common.secret_files import private_folder, replace_file

SEQUENCE = "sequence"
_MOST_OF_PNG = 255
_DIGITS = 32
"""Of the names of new masks, hexadecimal."""


def chosen(rows: Iterable[Row], names: Names) -> list[Row]:
    """Return the rows whose sequence the mapping names, under that name; all without sequences.

    Raises:
        ValueError: a class that the mapping does not list.
    """
    found = []
    for row in rows:
        about = dict(row.covariates)
        if names.sequences:
            name = names.sequence(about.get(SEQUENCE, ""))
            if name is None:
                continue
            about[SEQUENCE] = name
        label = row.label
        if label is not None and names.classes:
            label = names.class_of(label)
        found.append(replace(row, covariates=about, label=label))
    return found


def relabelled(row: Row, names: Names, words: Mapping[int, str], folder: Path) -> Row:
    """Return the row with its mask in the study's values; one that changes is written anew.

    words: names of the label values, where a data set tells them. A segmentation or a set of
    contours tells its own. folder: where new masks go, as NIfTI, or PNG for a flat image; they are
    named by their content, so that several manifests may share it.

    Raises:
        BadFileError: a label that the mapping does not list, or files that cannot be read.
    """
    if row.mask is None or not names.labels:
        return row
    image = read_image(row.image, 1)
    labels = read_mask(row.mask, image).array_CS[0]
    own = {**words, **names_of_mask(row.mask)}
    values = [int(value) for value in np.unique(labels) if value != 0]
    new = np.zeros_like(labels)
    for value in values:
        known = names.label(own.get(value, "")) if value in own else None
        known = names.label(str(value)) if known is None else known
        if known is None:
            told = f"{value} ({own[value]})" if value in own else str(value)
            raise BadFileError(
                row.mask,
                f"has the label {told}, which the mapping does not list",
                "add it under labels, with 0 if it is to be background",
            )
        new[labels == value] = known
    if (new == labels).all():
        return row
    return replace(row, mask=_write(folder, image, new))


def _write(folder: Path, image: Picture, labels_S: NDArray[np.int64]) -> Path:
    if labels_S.ndim == 2 and labels_S.max() <= _MOST_OF_PNG:
        picture = io.BytesIO()
        Image.fromarray(labels_S.T.astype(np.uint8)).save(picture, "PNG")
        kind, content = ".png", picture.getvalue()
    else:
        volume = nib.Nifti1Image(labels_S.astype(np.int32), image.affine)
        # Without the time, which would make another file of the same mask.
        kind, content = ".nii.gz", gzip.compress(volume.to_bytes(), mtime=0)
    path = folder / f"{hashlib.sha256(content).hexdigest()[:_DIGITS]}{kind}"
    private_folder(folder)
    if not path.exists():
        replace_file(path, content)
    return path


def sequences_of(rows: Sequence[Row]) -> list[str]:
    """Return the sequences that rows tell, sorted."""
    return sorted({row.covariates[SEQUENCE] for row in rows if SEQUENCE in row.covariates})
