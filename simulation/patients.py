"""The people in a manifest of images, and the manifest of some of them."""

import csv
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from client.content import digest_of
from common.data_config import COLUMNS, SEQUENCE
from common.tasks.multilabel import SEPARATOR
from simulation.partition_config import PartitionConfig

TRAIN, TEST = "train", "test"
_LISTED = 12


@dataclass(frozen=True)
class Patient:
    """One person with all of their images."""

    name: str
    label: str
    """Of the first image; empty where there is none."""
    rows: tuple[Mapping[str, str], ...]
    """In the order of their image paths."""
    side: str | None = None
    """train, test, or None: the hospital draws it."""


def patient_of(image: str, pattern: str) -> str:
    """Return the patient that an image path names: the pattern's groups, else the file's stem."""
    found = re.search(pattern, image) if pattern else None
    named = "-".join(group for group in found.groups() if group) if found else ""
    return named or Path(image.removesuffix(".gz")).stem


def _rows(manifest: Path, config: PartitionConfig) -> list[dict[str, str]]:
    if not manifest.is_file():
        raise ValueError(
            f"{manifest} is not a file, so there is nothing to deal to hospitals; set the data's "
            "root to the folder that has it, or partition.manifest to its name there"
        )
    with manifest.open(newline="", encoding="utf-8-sig") as file:
        table = csv.DictReader(file, delimiter="\t" if manifest.suffix == ".tsv" else ",")
        there = list(table.fieldnames or [])
        _check_columns(there, config, manifest)
        rows = [{column: row[column] or "" for column in there} for row in table]
    for column, value in config.where.items():
        wanted, known = value.split(SEPARATOR), {row[column] for row in rows}
        if missing := set(wanted) - known:
            raise ValueError(
                f"no row of {manifest.name} has {column}={listed(missing)!r}; "
                f"those left have: {listed(known)}"
            )
        rows = [row for row in rows if row[column] in wanted]
    if not rows:
        raise ValueError(f"{manifest} has a header and no rows; give one row an image")
    return rows


def _check_columns(there: Sequence[str], config: PartitionConfig, manifest: Path) -> None:
    by = config.columns if config.by == "column" else []
    optional = (config.mask_column, config.label_column, config.split_column)
    asked = [config.image_column, *(name for name in optional if name), *config.where, *by]
    missing = [name for name in asked if name not in there]
    if missing:
        raise ValueError(
            f"{manifest} has no column {', '.join(map(repr, missing))}; "
            f"it has: {', '.join(there)}. Correct the name in partition"
        )


def read_patients(root: Path, config: PartitionConfig) -> list[Patient]:
    """Return the patients of the manifest by name, so that the order of its rows means nothing.

    Raises:
        ValueError: the manifest, a column, a value or an image's cell is missing, or a patient is
            on two sides of the split.
    """
    rows = _rows(root / config.manifest, config)
    of_patient: dict[str, list[Mapping[str, str]]] = {}
    for row in sorted(rows, key=lambda row: (row[config.image_column], sorted(row.items()))):
        image = row[config.image_column]
        if not image:
            raise ValueError(
                f"a row has an empty cell {config.image_column!r}: {dict(row)}; name the image, "
                "or drop the row"
            )
        of_patient.setdefault(patient_of(image, config.patient_pattern), []).append(row)
    of_patient = _joined(of_patient, root, config.image_column)
    patients = []
    for name, own in sorted(of_patient.items()):
        label = own[0][config.label_column] if config.label_column else ""
        side = _side_of(name, own, config)
        patients.append(Patient(name, label, tuple(own), side))
    return patients


def _joined(
    of_patient: Mapping[str, list[Mapping[str, str]]], root: Path, image_column: str
) -> dict[str, list[Mapping[str, str]]]:
    """Return the patients with those joined who share an image, byte for byte.

    Public data sets list some images twice under two names; on two sides they would be a leak.
    """
    first_with: dict[str, str] = {}
    joined: dict[str, list[Mapping[str, str]]] = {}
    for name, rows in sorted(of_patient.items()):
        files = [root / row[image_column] for row in rows]
        digests = [digest_of(file) for file in files if file.exists()]
        found = [first_with[digest] for digest in digests if digest in first_with]
        person = found[0] if found else name
        joined.setdefault(person, []).extend(rows)
        for other in set(found[1:]) - {person}:
            joined[person].extend(joined.pop(other))
            first_with |= {digest: person for digest, who in first_with.items() if who == other}
        first_with |= dict.fromkeys(digests, person)
    return joined


def _side_of(
    patient: str, rows: Sequence[Mapping[str, str]], config: PartitionConfig
) -> str | None:
    if config.split_column is None:
        return None
    values = {row[config.split_column] for row in rows}
    known = dict.fromkeys(config.train_values, TRAIN) | dict.fromkeys(config.test_values, TEST)
    if unknown := sorted(values - set(known)):
        raise ValueError(
            f"{config.split_column}={unknown[0]!r} is neither in partition.train_values "
            f"{config.train_values} nor in partition.test_values {config.test_values}; add it there"
        )
    sides = {known[value] for value in values}
    if len(sides) > 1:
        raise ValueError(
            f"patient {patient!r} has images in training and in testing by column "
            f"{config.split_column!r}; set partition.split_column to null (the split is then drawn "
            "by patient), or correct partition.patient_pattern if these are two people"
        )
    return sides.pop()


def manifest_of(patients: Sequence[Patient], root: Path, config: PartitionConfig) -> str:
    """Return one hospital's manifest as CSV text; docs at partition()."""
    optional = (config.mask_column, config.label_column, config.split_column)
    mapped = {config.image_column, *(name for name in optional if name)}
    root = root.resolve()
    lines = [
        _line(row, patient, root, config, mapped) for patient in patients for row in patient.rows
    ]
    lines.sort(key=lambda line: (line["patient"], line["image"]))
    # A column that is empty throughout is left out: the site has no masks, no labels, no split.
    columns = [name for name in lines[0] if any(line[name] for line in lines)]
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return text.getvalue()


def _line(
    row: Mapping[str, str],
    patient: Patient,
    root: Path,
    config: PartitionConfig,
    mapped: set[str],
) -> dict[str, str]:
    mask = row[config.mask_column] if config.mask_column else ""
    line = {
        "image": str(root / row[config.image_column]),
        "mask": str(root / mask) if mask else "",
        "label": row[config.label_column] if config.label_column else "",
        "patient": patient.name,
        "split": patient.side or "",
    }
    for name, value in row.items():
        if name.startswith(SEQUENCE) and value:
            line[name] = str(root / value)
        elif name not in mapped:
            line[f"original_{name}" if name in COLUMNS else name] = value
    return line


def listed(values: Iterable[str]) -> str:
    """Return the first values in order, and how many more there are."""
    known = sorted(values)
    more = f" and {len(known) - _LISTED} more" if len(known) > _LISTED else ""
    return ", ".join(known[:_LISTED]) + more
