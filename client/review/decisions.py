"""What people decided about images: an append-only log, and labels put right in the manifest.

    state/review/STUDY-MODEL.jsonl   one JSON object a decision, in the order that they were made
    corrected/ beside the manifest   the masks that people gave; those before stay where they were
    .manifest.csv.lock beside it     held while a row is looked at and changed

Only cells of one row get other values. The table is written anew: quotes, line ends and spaces
about a cell that say nothing may go, in other rows too.
"""

import csv
import io
import json
import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import nibabel as nib
from pydantic import TypeAdapter

from client.cases import read_case
from client.manifest import SEPARATORS, Row, listed_rows
from client.readers import READERS, BadFileError, read_image
from client.readers.registry import ending, stem
from common.locks import waited_for
from common.schema import SettingsError
from common.secret_files import PRIVATE, private_folder, replace_file, write_new
from common.study import Study

ACCEPTED, CORRECTED, REJECTED = "accepted", "corrected", "rejected"
CORRECTING = "correcting"
"""Written down before the manifest is changed: a kill leaves no change without a trail."""
FOLDER, MASKS = "review", "corrected"
AUTHOR, DATE = "label_author", "label_date"
"""Columns of the manifest: who gave a row its label last, and when."""
MOST_NOTE = 500


@dataclass(frozen=True, kw_only=True)
class Decision:
    """What one person decided about one image."""

    image: str
    """As the manifest names it."""
    patient: str
    decision: str
    """ACCEPTED, CORRECTING, CORRECTED or REJECTED."""
    author: str
    at: str
    """Time in UTC, ISO 8601."""
    note: str = ""
    before: str = ""
    """The label or the mask's path that a correction took the place of."""
    after: str = ""
    """What took its place."""


_Decision = TypeAdapter(Decision)


class Log:
    """The decisions about one model of one study at one site."""

    def __init__(self, state: Path, digest: str, weights_sha256: str) -> None:
        self.path = state / FOLDER / f"{digest[:16]}-{weights_sha256[:16]}.jsonl"

    def add(self, decision: Decision) -> None:
        """Write a decision down; it is on the disk when this returns."""
        private_folder(self.path.parent)
        line = json.dumps(asdict(decision), sort_keys=True).encode() + b"\n"
        descriptor = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT, PRIVATE)
        with waited_for(_lock_of(self.path)), os.fdopen(descriptor, "rb+") as file:
            if file.seek(0, os.SEEK_END):
                file.seek(-1, os.SEEK_END)
                # A line that a kill cut short takes no other one with it.
                line = line if file.read(1) == b"\n" else b"\n" + line
            file.write(line)
            file.flush()
            os.fsync(file.fileno())

    def newest(self) -> dict[str, Decision]:
        """Return the last decision about each image; a line that a kill cut short counts not."""
        found: dict[str, Decision] = {}
        for line in self.path.read_text().splitlines() if self.path.exists() else []:
            try:
                decision = _Decision.validate_json(line)
            except ValueError:
                continue
            found[decision.image] = decision
        return found


@dataclass(frozen=True, kw_only=True)
class Reviewer:
    """Who corrects what, for which study, and where it is written down."""

    author: str
    manifest: Path
    study: Study
    log: Log


def corrected_label(by: Reviewer, row: Row, label: str) -> Decision:
    """Give an image another label in the manifest, and write it down before and after.

    Raises:
        BadFileError: the study has no such label.
        ValueError: the manifest has changed since the row was read, cannot be read, or is a folder.
        OSError: it cannot be written.
    """
    changed = Row(**{**vars(row), "label": label})
    read_case(changed, by.study.data, by.study.task)
    return _rewritten(by, row, {"label": label}, row.label or "")


def corrected_mask(by: Reviewer, row: Row, content: bytes, name: str) -> Decision:
    """Keep a mask, name it in the manifest, and write it down before and after.

    content: of a file of the name's ending. It is checked as any mask of a cohort is.

    Raises:
        BadFileError: whatever the mask has against being used; nothing was changed.
        ValueError: the manifest has changed since the row was read, cannot be read, or is a folder.
        OSError: it cannot be written.
    """
    manifest, study = by.manifest, by.study
    _check_table(manifest)
    folder = manifest.parent / MASKS
    # Whoever reads the manifest reads the masks that it names.
    folder.mkdir(mode=manifest.parent.stat().st_mode & 0o777, exist_ok=True)
    now = datetime.now(UTC)
    safe = re.sub(r"[^A-Za-z0-9_-]", "_", stem(row.image))
    target = folder / f"{safe}-{now:%Y%m%dT%H%M%S%f}{_ending_of(name)}"
    write_new(target, content, manifest.stat().st_mode & 0o777)
    try:
        _check_size(target, row)
        read_case(Row(**{**vars(row), "mask": target}), study.data, study.task)
        before = "" if row.mask is None else _told(row.mask, manifest)
        return _rewritten(by, row, {"mask": _told(target, manifest)}, before)
    except BadFileError as error:
        target.unlink()
        # The person knows the file by the name that they gave it.
        given = Path(name) if error.path == target else error.path
        raise BadFileError(given, error.reason, error.remedy) from error
    except BaseException:
        target.unlink()
        raise


def _check_size(mask: Path, row: Row) -> None:
    """Raise BadFileError where a mask's header tells other sizes than its image has.

    Before its voxels are read: nothing packed is many times as large as the image when unpacked.
    """
    if READERS.get(ending(mask)) != READERS[".nii"]:
        return
    try:
        told = tuple(int(n) for n in nib.load(mask).shape if n > 1)
    # What else is wrong with the file is told when it is read.
    except (nib.filebasedimages.ImageFileError, OSError, ValueError, EOFError):
        return
    own = tuple(n for n in read_image(row.image, 1).array_CS.shape[1:] if n > 1)
    if sorted(told) != sorted(own):
        raise BadFileError(
            mask,
            f"has the shape {told}, its image {row.image} has {own}",
            "draw or resample it on the grid of its image",
        )


def decided(row: Row, manifest: Path, decision: str, author: str, note: str) -> Decision:
    """Return what is to be logged of an answer that was accepted or rejected."""
    return Decision(
        image=_told(row.image, manifest),
        patient=row.patient,
        decision=decision,
        author=author,
        at=_now(),
        note=note[:MOST_NOTE],
    )


def image_name(row: Row, manifest: Path) -> str:
    """Return an image's name in the log."""
    return _told(row.image, manifest)


def _rewritten(by: Reviewer, row: Row, cells: Mapping[str, str], before: str) -> Decision:
    _check_table(by.manifest)
    decision = Decision(
        image=_told(row.image, by.manifest),
        patient=row.patient,
        decision=CORRECTED,
        author=by.author,
        at=_now(),
        before=before,
        after=next(iter(cells.values())),
    )
    # The manifest may be a link to the one that is kept.
    manifest = by.manifest.resolve()
    with waited_for(_lock_of(manifest)):
        content = _with_cells(by.manifest, row, {**cells, AUTHOR: by.author, DATE: decision.at})
        by.log.add(replace(decision, decision=CORRECTING))
        replace_file(manifest, content, manifest.stat().st_mode & 0o777)
        by.log.add(decision)
    return decision


def _with_cells(manifest: Path, row: Row, cells: Mapping[str, str]) -> bytes:
    """Return the manifest with other cells in the one row that is still as it was read."""
    alike = [place for place, one in enumerate(listed_rows(manifest)) if one == row]
    if len(alike) != 1:
        raise SettingsError(
            f"{manifest} has {len(alike)} rows of {row.image.name} that are as this page shows it; "
            "it was changed since the page was opened, or lists it twice: close it and begin again"
        )
    header, records, separator = _table(manifest)
    records[alike[0]].update(cells)
    columns = [*header, *(name for name in cells if name not in header)]
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="", delimiter=separator, lineterminator="\n")
    writer.writeheader()
    writer.writerows(records)
    return text.getvalue().encode()


def _lock_of(path: Path) -> Path:
    return path.with_name(f".{path.name}.lock")


def _table(manifest: Path) -> tuple[list[str], list[dict[str, str]], str]:
    separator = _check_table(manifest)
    with manifest.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.reader(file, delimiter=separator)
        header, *rows = ([cell.strip() for cell in cells] for cells in reader if cells)
    return header, [dict(zip(header, cells, strict=True)) for cells in rows], separator


def _check_table(manifest: Path) -> str:
    separator = SEPARATORS.get(ending(manifest))
    if manifest.is_dir() or separator is None:
        raise SettingsError(
            f"{manifest} is no table, and a correction is a row of one; write a manifest.csv with "
            "image, mask or label, and patient, and name it in site.yaml"
        )
    return separator


def _ending_of(name: str) -> str:
    return re.sub(r"[^a-z0-9.]", "", ending(Path(name)))


def _told(path: Path, manifest: Path) -> str:
    """Return a path as the manifest would name it."""
    return str(path.relative_to(manifest.parent) if path.is_relative_to(manifest.parent) else path)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
