"""What people decided about images: an append-only log, and labels put right in the manifest.

    state/review/DIGEST.jsonl        one JSON object a decision, in the order that they were made
    corrected/ beside the manifest   the masks that people gave; those before stay where they were

Only the manifest's own cells of one row change; all others stay as they are written.
"""

import csv
import io
import json
import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from pydantic import TypeAdapter

from client.cases import read_case
from client.manifest import SEPARATORS, Row
from client.readers.registry import ending, stem
from common.schema import SettingsError
from common.secret_files import PRIVATE, private_folder, replace_file, write_new
from common.study import Study

ACCEPTED, CORRECTED, REJECTED = "accepted", "corrected", "rejected"
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
    """ACCEPTED, CORRECTED or REJECTED."""
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
    """The decisions of one study at one site."""

    def __init__(self, state: Path, digest: str) -> None:
        self.path = state / FOLDER / f"{digest[:16]}.jsonl"

    def add(self, decision: Decision) -> None:
        """Write a decision down; it is on the disk when this returns."""
        private_folder(self.path.parent)
        line = json.dumps(asdict(decision), sort_keys=True) + "\n"
        descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, PRIVATE)
        with os.fdopen(descriptor, "w") as file:
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


def corrected_label(manifest: Path, row: Row, label: str, study: Study, author: str) -> Decision:
    """Give an image another label in the manifest, and return what is to be logged.

    Raises:
        BadFileError: the study has no such label.
        SettingsError: the manifest has changed, or is a folder.
    """
    changed = Row(**{**vars(row), "label": label})
    read_case(changed, study.data, study.task)
    return _rewritten(manifest, row, {"label": label}, row.label or "", author)


def corrected_mask(
    manifest: Path, row: Row, content: bytes, name: str, study: Study, author: str
) -> Decision:
    """Keep a mask, name it in the manifest, and return what is to be logged.

    content: of a file of the name's ending. It is checked as any mask of a cohort is.

    Raises:
        BadFileError: whatever the mask has against being used; nothing was changed.
        SettingsError: the manifest has changed, or is a folder.
    """
    _check_table(manifest)
    folder = manifest.parent / MASKS
    # Whoever reads the manifest reads the masks that it names.
    folder.mkdir(mode=manifest.parent.stat().st_mode & 0o777, exist_ok=True)
    now = datetime.now(UTC)
    safe = re.sub(r"[^A-Za-z0-9_-]", "_", stem(row.image))
    target = folder / f"{safe}-{now:%Y%m%dT%H%M%S%f}{_ending_of(name)}"
    write_new(target, content, manifest.stat().st_mode & 0o777)
    try:
        read_case(Row(**{**vars(row), "mask": target}), study.data, study.task)
        before = "" if row.mask is None else _told(row.mask, manifest)
        return _rewritten(manifest, row, {"mask": _told(target, manifest)}, before, author)
    except BaseException:
        target.unlink()
        raise


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


def _rewritten(
    manifest: Path, row: Row, cells: Mapping[str, str], before: str, author: str
) -> Decision:
    at = _now()
    header, records, separator = _table(manifest)
    wanted = [record for record in records if manifest.parent / record["image"] == row.image]
    if len(wanted) != 1:
        raise SettingsError(
            f"{manifest} has {len(wanted)} rows of {row.image.name}; it was changed since the page "
            "was opened: close it and begin again"
        )
    wanted[0].update({**cells, AUTHOR: author, DATE: at})
    columns = [*header, *(name for name in (*cells, AUTHOR, DATE) if name not in header)]
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="", delimiter=separator, lineterminator="\n")
    writer.writeheader()
    writer.writerows(records)
    replace_file(manifest, text.getvalue().encode(), manifest.stat().st_mode & 0o777)
    return Decision(
        image=_told(row.image, manifest),
        patient=row.patient,
        decision=CORRECTED,
        author=author,
        at=at,
        before=before,
        after=next(iter(cells.values())),
    )


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
