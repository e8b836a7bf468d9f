"""BIDS: patients, sessions and derivatives to rows (Gorgolewski et al., Scientific Data 3, 2016).

Only what a name and the tables say is used, so no library that builds a data base of the folder.
"""

import csv
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from client.content import files_of
from client.listing.listing import Listing, fitting
from client.manifest import Row
from client.readers.registry import ending, stem

DERIVATIVES = "derivatives"
_TABLE = "participants.tsv"
_DESCRIPTION = "dataset_description.json"
_SUBJECT = re.compile(r"sub-[A-Za-z0-9]+")
_MASKS = re.compile(r"(mask|dseg|seg|label|roi|lesion)", re.IGNORECASE)
_NOT_OF_IMAGE = ("space", "desc", "label", "res", "den")
"""Entities that a derivative adds to the name of its image."""
_EMPTY = ("", "n/a")
_SCANNER = ("Manufacturer", "ManufacturersModelName")


@dataclass(frozen=True, kw_only=True)
class _Named:
    """A file name, taken apart: sub-01_ses-2_run-1_T1w.nii.gz."""

    path: Path
    entities: Mapping[str, str]
    suffix: str
    """What follows the entities, such as T1w or dseg."""


def is_bids(root: Path) -> bool:
    """Return whether a folder is laid out as BIDS has it."""
    if not root.is_dir():
        return False
    subjects = any(
        entry.is_dir() and _SUBJECT.fullmatch(entry.name.split("_")[0]) for entry in root.iterdir()
    )
    return subjects and ((root / _TABLE).is_file() or (root / _DESCRIPTION).is_file())


def bids_rows(root: Path, mask_pattern: str) -> Listing:
    """Return a row for each raw image, with the mask of the same patient, session and run.

    mask_pattern: of the masks' file names; an image of which it leaves several is told as such. A
    patient is a subject, with all sessions. Columns of participants.tsv and of a subject's
    sessions.tsv become columns, and sequence, scanner and field_t are taken from name and sidecar.
    """
    named = [_named(file) for file in files_of(root) if ending(file) in (".nii", ".nii.gz")]
    found = [one for one in named if one is not None]
    masks = [one for one in found if _is_mask(root, one)]
    images = [one for one in found if one not in masks and not _is_derived(root, one)]
    people = _table(root / _TABLE, "participant_id")
    rows = []
    several: dict[Path, list[Path]] = {}
    for one in images:
        patient, session = f"sub-{one.entities['sub']}", one.entities.get("ses")
        visits = _table(root / patient / f"{patient}_sessions.tsv", "session_id")
        about = {**people.get(patient, {}), **visits.get(f"ses-{session}", {})}
        if session is not None:
            about["session"] = session
        of_it = _masks_of(one, masks, mask_pattern)
        if len(of_it) > 1:
            several[one.path] = of_it
        rows.append(
            Row(
                image=one.path,
                mask=of_it[0] if len(of_it) == 1 else None,
                patient=patient,
                covariates={**about, **_sidecar(one.path), "sequence": one.suffix},
            )
        )
    return Listing(rows=rows, several=several)


def _named(path: Path) -> _Named | None:
    entities: dict[str, str] = {}
    parts = stem(path).split("_")
    while parts and re.fullmatch(r"[a-zA-Z]+-[A-Za-z0-9+]+", parts[0]):
        key, value = parts.pop(0).split("-")
        entities[key] = value
    if "sub" not in entities:
        return None
    return _Named(path=path, entities=entities, suffix="_".join(parts))


def _is_mask(root: Path, one: _Named) -> bool:
    derived = _is_derived(root, one) and "label" in one.entities
    return bool(_MASKS.search(one.suffix)) or derived


def _is_derived(root: Path, one: _Named) -> bool:
    return DERIVATIVES in one.path.relative_to(root).parts[:-1]


def _masks_of(image: _Named, masks: Sequence[_Named], pattern: str) -> list[Path]:
    own = {key: value for key, value in image.entities.items() if key not in _NOT_OF_IMAGE}
    return fitting([mask.path for mask in masks if _is_of(mask, own, image.suffix)], pattern)


def _is_of(mask: _Named, own: Mapping[str, str], suffix: str) -> bool:
    theirs = {key: value for key, value in mask.entities.items() if key not in _NOT_OF_IMAGE}
    # A name such as T1w_seg says which image of several it is of.
    names_another = "_" in mask.suffix and not mask.suffix.startswith(f"{suffix}_")
    return theirs == own and not names_another


def _table(path: Path, key: str) -> dict[str, dict[str, str]]:
    if not path.is_file():
        return {}
    with path.open(newline="", encoding="utf-8-sig") as file:
        lines = list(csv.DictReader(file, delimiter="\t"))
    return {
        line[key]: {
            name: cell
            for name, cell in line.items()
            if name != key and isinstance(cell, str) and cell not in _EMPTY
        }
        for line in lines
        if line.get(key)
    }


def _sidecar(image: Path) -> dict[str, str]:
    path = image.with_name(f"{stem(image)}.json")
    try:
        about = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    if not isinstance(about, dict):
        return {}
    scanner = " ".join(str(about[name]).strip() for name in _SCANNER if about.get(name))
    field_t = about.get("MagneticFieldStrength")
    found = {"scanner": scanner, "field_t": "" if field_t is None else f"{field_t}"}
    return {name: words for name, words in found.items() if words}
