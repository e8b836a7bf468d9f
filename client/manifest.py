"""Which files a site has: a table with one row an image, or a folder in one of two layouts."""

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from client.readers.registry import ending, stem
from common.data_config import COLUMNS, SEQUENCE
from common.tasks.config import EMPTY_CELLS

SEPARATORS = {".csv": ",", ".tsv": "\t"}
_LONGEST_NAME = 255
"""Bytes of a file's name; a longer cell is a text."""
SIDES = ("train", "test")
"""The values of a split column."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One image of one patient."""

    image: Path
    mask: Path | None = None
    """Mask of the image, for segmentation."""
    label: str | None = None
    """Class of the image, for classification."""
    patient: str
    """Every image of one person has the same value; it never leaves the site."""
    split: str | None = None
    """train or test where the site fixes the side; None where it is drawn."""
    covariates: Mapping[str, str] = field(default_factory=dict)
    """All other columns of the row that are not empty, such as age, scanner or image_NAME."""
    sequences: Mapping[str, Path] = field(default_factory=dict)
    """By name the files of columns image_NAME that are not empty: the same place seen by several
    sequences, as T1 and FLAIR."""

    @property
    def files(self) -> list[Path]:
        """The image, its other sequences and its mask."""
        mask = [] if self.mask is None else [self.mask]
        return [self.image, *self.sequences.values(), *mask]


def read_manifest(path: Path) -> list[Row]:
    """Return the rows of a CSV or TSV file, in its order.

    The header names `image` and `patient`, `mask` or `label` or both where the images have them,
    image_NAME where there are several sequences, `split` (train or test) and any covariates where
    there are some. Paths are relative to the manifest's folder, or absolute. Whether the files
    exist is seen when they are read. An empty cell of mask or label is an image that nobody has
    labelled; whether it can be used is for the study to say.

    Raises:
        ValueError: no such file, another ending, not UTF-8, a missing or repeated column, another
            cell that is empty, no rows, another split than train or test, a patient on both sides
            of the split.
    """
    rows = listed_rows(path)
    stated_sides(rows)
    return rows


def listed_rows(path: Path) -> list[Row]:
    """Return the rows of a manifest as it lists them, whatever their split says of patients.

    Raises:
        ValueError: as read_manifest, less the last.
    """
    return [_row(path, line, cells) for line, cells in _records(path)]


def read_folder(path: Path) -> list[Row]:
    """Return the rows of a folder without a manifest, sorted by file name.

    Either `images/` and `masks/` (or `labels/`) whose files have the same names but for their
    endings, or one sub-folder a class. The patient is the file's name without its ending, so a
    folder whose patients have several images needs a manifest. Hidden files are passed over.

    Raises:
        ValueError: neither layout, no images, a mask without an image, two masks of one image.
    """
    if not path.is_dir():
        raise ValueError(f"{path} is not a folder; give the folder of the images, or a manifest")
    folders = [entry for entry in _visible(path) if entry.is_dir()]
    if path / "images" in folders:
        rows = _masked_rows(path)
    else:
        rows = [
            Row(image=file, label=folder.name, patient=stem(file))
            for folder in folders
            for file in _visible(folder)
        ]
    if not rows:
        raise ValueError(
            f"{path} holds no images; put them into images/ with their masks in masks/, or into "
            "one sub-folder a class, or give a manifest"
        )
    return rows


def stated_sides(rows: Sequence[Row]) -> dict[str, str]:
    """Return the side (train or test) of each patient; empty where the rows state none.

    Raises:
        ValueError: some rows have a split and some have none, or a patient is on both sides.
    """
    without = sum(row.split is None for row in rows)
    if without == len(rows):
        return {}
    if without:
        raise ValueError(
            f"{without} of {len(rows)} rows have no split; give every row one, or none"
        )
    sides: dict[str, str] = {}
    for row in rows:
        side = str(row.split)
        if sides.setdefault(row.patient, side) != side:
            raise ValueError(
                f"patient {row.patient!r} is in both train and test; "
                "put all images of a patient on one side"
            )
    return sides


def _records(path: Path) -> list[tuple[int, dict[str, str]]]:
    """Return line number and cells by column of every row that is not blank."""
    separator = SEPARATORS.get(ending(path))
    if separator is None:
        raise ValueError(f"manifest {path} ends in {ending(path)!r}; save it as .csv or .tsv")
    if not path.is_file():
        raise ValueError(f"manifest {path} does not exist; correct the path")
    try:
        # Spreadsheet programs begin a UTF-8 file with a mark.
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"manifest {path} is not UTF-8 text; save it as UTF-8") from error
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
    try:
        lines = [(reader.line_num, [cell.strip() for cell in cells]) for cells in reader if cells]
    except csv.Error as error:
        raise ValueError(
            f"line {reader.line_num} of manifest {path} cannot be read ({error}); "
            "look for a quote that is not closed"
        ) from error
    header = lines[0][1] if lines else []
    _check_header(path, header)
    if len(lines) == 1:
        raise ValueError(f"manifest {path} has no rows; list at least one image")
    for line, cells in lines[1:]:
        if len(cells) != len(header):
            raise ValueError(
                f"line {line} of manifest {path} has {len(cells)} cells, the header has "
                f"{len(header)}; quote cells that hold a {separator!r}"
            )
    return [(line, dict(zip(header, cells, strict=True))) for line, cells in lines[1:]]


def _check_header(path: Path, header: Sequence[str]) -> None:
    there = ", ".join(repr(name) for name in header) or "none"
    for wanted in ("image", "patient"):
        if wanted not in header:
            raise ValueError(f"manifest {path} has no column {wanted!r}; its columns are: {there}")
    repeated = {name for name in header if header.count(name) > 1}
    if repeated:
        raise ValueError(
            f"manifest {path} has more than one column {min(repeated)!r}; keep one of them"
        )


def _row(path: Path, line: int, cells: Mapping[str, str]) -> Row:
    filled = {name: cell for name, cell in cells.items() if cell not in EMPTY_CELLS}
    for name in ("image", "patient", *(["split"] if "split" in cells else [])):
        if name not in filled:
            raise ValueError(
                f"line {line} of manifest {path} has an empty cell in column {name!r}; "
                "fill it, or take the row out"
            )
    split = filled.get("split")
    if split is not None and split not in SIDES:
        raise ValueError(
            f"line {line} of manifest {path} has split {split!r}; write one of: {', '.join(SIDES)}"
        )
    mask = filled.get("mask")
    return Row(
        image=path.parent / filled["image"],
        mask=None if mask is None else path.parent / mask,
        label=filled.get("label"),
        patient=filled["patient"],
        split=split,
        # What image_NAME is, a file or a word such as good, is for a study to say.
        covariates={name: cell for name, cell in filled.items() if name not in COLUMNS},
        sequences={
            name.removeprefix(SEQUENCE): path.parent / cell
            for name, cell in filled.items()
            if name.startswith(SEQUENCE) and len(Path(cell).name.encode()) <= _LONGEST_NAME
        },
    )


def _masked_rows(path: Path) -> list[Row]:
    masks = _by_stem(
        file
        for name in ("masks", "labels")
        if (path / name).is_dir()
        for file in _visible(path / name)
    )
    rows = [
        Row(image=file, mask=masks.get(stem(file)), patient=stem(file))
        for file in _visible(path / "images")
    ]
    lonely = sorted(set(masks) - {row.patient for row in rows})
    if lonely:
        raise ValueError(
            f"{masks[lonely[0]]} has no image of its name in {path / 'images'} "
            f"({len(lonely)} of {len(masks)} masks); add the image, or take the mask out"
        )
    return rows


def _by_stem(files: Iterable[Path]) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for file in files:
        other = found.setdefault(stem(file), file)
        if other != file:
            raise ValueError(f"{other} and {file} are masks of one image; keep one of them")
    return found


def _visible(folder: Path) -> list[Path]:
    return sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
