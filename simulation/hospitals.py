"""Virtual hospitals: folders of NIfTI images, lesion masks and a manifest, as a site would have.

A hospital is a scanner (simulation/scanner.py) and the patients it sees (simulation/phantom.py).
A folder appears whole or not at all: it is filled under a hidden name and then renamed. A folder
that was made before with the same settings is left as it is.
"""

import csv
import hashlib
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Protocol

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from client.content import digest_of
from common.checks import in_range, not_negative, positive
from common.files import read_json, write_json
from common.seeding import seed as derive_seed
from simulation.outlook import Outlook, followed_up
from simulation.overlay import overlay
from simulation.phantom import CaseMix, make_anatomy
from simulation.scanner import ScannerConfig, acquire

MANIFEST = "manifest.csv"
MARKER = "made_with.json"
# Part of the marker: raised when equal settings no longer give equal bytes.
_RECIPE = 1


@dataclass(frozen=True, kw_only=True)
class Hospital:
    """One virtual hospital."""

    name: str
    """Letters, digits, _ and -; begins every patient's id, so choose another for each hospital."""
    scanner: ScannerConfig
    """What its images are made with."""
    patients: int = 30
    """All its patients, training and test."""
    held_out: float = 0.2
    """Share of the patients whose split is test; of two or more, at least one on each side unless
    the share is 0 or 1."""
    case_mix: CaseMix = field(default_factory=CaseMix)
    """Which patients it sees."""
    sequences: Mapping[str, ScannerConfig] | None = None
    """By name what else its scanner images, on the same grid: files in columns image_NAME. None:
    the one image."""
    outlook: Outlook | None = None
    """What comes of them; None: nobody is followed up."""
    new_lesions_mean: float | None = None
    """Mean number of lesions that a patient has at a second visit and not at the first (Poisson).
    Both are then files, image_baseline and image_followup, and a mask has the new lesions alone.
    None: one visit."""

    def __post_init__(self) -> None:
        positive(patients=self.patients)
        in_range(0.0, 1.0, held_out=self.held_out)
        if self.new_lesions_mean is not None:
            not_negative(new_lesions_mean=self.new_lesions_mean)
            if self.sequences is not None:
                raise ValueError(
                    f"new_lesions_mean={self.new_lesions_mean:g} and sequences="
                    f"{list(self.sequences)} both name the images of a patient; leave one out"
                )
        if not re.fullmatch(r"[A-Za-z0-9_-]+", self.name):
            raise ValueError(
                f"name={self.name!r} cannot begin file names and patient ids; "
                "use letters, digits, _ and - only"
            )

    @property
    def held_out_patients(self) -> int:
        """How many of the patients are for testing."""
        count = round(self.held_out * self.patients)
        if 0.0 < self.held_out < 1.0 and self.patients >= 2:
            return min(max(count, 1), self.patients - 1)
        return count


class ImageRow(Protocol):
    """What `overlay_site` needs of a manifest's row (client/manifest.py)."""

    @property
    def image(self) -> Path:
        """The image's file."""

    @property
    def mask(self) -> Path | None:
        """The mask's file, on the image's grid."""

    @property
    def label(self) -> str | None:
        """The image's class."""

    @property
    def patient(self) -> str:
        """The patient's id."""

    @property
    def split(self) -> str | None:
        """Train or test."""

    @property
    def covariates(self) -> Mapping[str, str]:
        """All other columns."""


def write_hospital(folder: Path, hospital: Hospital, seed: int) -> Path:
    """Write the hospital's images/, masks/ and manifest.csv; return the manifest's path.

    The manifest's columns are image, mask (paths relative to it), patient, split, age, sequence
    and field_t; image_NAME of each other sequence, or of each visit; with an outlook time, event
    and log_hazard (simulation/outlook.py). Equal settings and seed give equal bytes. A patient's
    anatomy depends on the seed, the hospital's name and its case mix only: another scanner sees the
    same patients. One process at a time may write a folder.

    Raises ValueError if the folder holds something else, or was made with other settings.
    """

    def fill(partial: Path) -> None:
        for kind in ("images", "masks"):
            (partial / kind).mkdir(parents=True)
        rows = [_write_patient(partial, hospital, seed, i) for i in range(hospital.patients)]
        _write_manifest(partial / MANIFEST, rows)

    # Without what it has not, so that a folder of an older version is still known.
    about = {name: value for name, value in asdict(hospital).items() if value is not None}
    return _make_once(folder, {"hospital": about, "seed": seed}, fill)


def overlay_site(rows: Sequence[ImageRow], scanner: ScannerConfig, folder: Path, seed: int) -> Path:
    """Write real NIfTI images as if seen through the scanner; return the new manifest's path.

    The images keep their grid and header (`simulation.scanner.overlay` says what changes), the
    masks stay where they are and are named by absolute path. The columns are those of the rows,
    with the scanner's sequence and field_t. An image's noise depends on the seed, the patient and
    the file's name, not on the order of rows. One process at a time may write a folder.

    Raises ValueError if there are no rows, if only some rows have a mask, a label, a split or a
    covariate, if an image is not 3-D and finite, or if the folder holds something else or was made
    with other settings.
    """
    if not rows:
        raise ValueError("there are no rows to overlay; give a manifest with at least one image")
    old = [_columns(row) for row in rows]
    for columns in old:
        if columns.keys() != old[0].keys():
            raise ValueError(
                f"patient {columns['patient']} has the columns {sorted(columns)}, the first row "
                f"has {sorted(old[0])}; give every row the same columns"
            )

    def fill(partial: Path) -> None:
        (partial / "images").mkdir(parents=True)
        new = []
        for index, (row, columns) in enumerate(zip(rows, old, strict=True)):
            name = f"images/{index:04d}_{row.image.name.split('.nii')[0]}.nii"
            _overlay_file(row, scanner, partial / name, seed)
            about = {"sequence": scanner.sequence, "field_t": str(scanner.field_t)}
            new.append({**columns, "image": name, **about})
        _write_manifest(partial / MANIFEST, new)

    contents = [digest_of(row.image) for row in rows]
    source = hashlib.sha256(repr([old, contents]).encode()).hexdigest()
    return _make_once(folder, {"scanner": asdict(scanner), "source": source, "seed": seed}, fill)


def _write_patient(folder: Path, hospital: Hospital, seed: int, index: int) -> dict[str, str]:
    patient = f"{hospital.name}-{index:04d}"
    anatomy = make_anatomy(
        hospital.case_mix,
        _generator(seed, patient, "anatomy"),
        new_lesions_mean=hospital.new_lesions_mean,
    )
    scan = acquire(anatomy, hospital.scanner, _generator(seed, patient, "scan"))
    names = {"image": f"images/{patient}.nii", "mask": f"masks/{patient}.nii"}
    mask_XYZ = scan.mask_XYZ
    if anatomy.later_XYZ is not None:
        names |= {"image_baseline": names["image"], "image_followup": f"images/{patient}_later.nii"}
        after = replace(anatomy, labels_XYZ=anatomy.later_XYZ)
        later = acquire(after, hospital.scanner, _generator(seed, patient, "later", "scan"))
        _save(folder / names["image_followup"], later.image_XYZ, later.affine)
        mask_XYZ = np.where(scan.mask_XYZ > 0, 0, later.mask_XYZ).astype(scan.mask_XYZ.dtype)
    _save(folder / names["image"], scan.image_XYZ, scan.affine)
    _save(folder / names["mask"], mask_XYZ, scan.affine)
    for sequence, protocol in (hospital.sequences or {}).items():
        names[f"image_{sequence}"] = f"images/{patient}_{sequence}.nii"
        grid = _on_grid_of(hospital.scanner, protocol)
        seen = acquire(anatomy, grid, _generator(seed, patient, sequence, "scan"))
        _save(folder / names[f"image_{sequence}"], seen.image_XYZ, seen.affine)
    tested = index >= hospital.patients - hospital.held_out_patients
    return {
        **names,
        "patient": patient,
        "split": "test" if tested else "train",
        "age": f"{anatomy.age_years:.1f}",
        "sequence": hospital.scanner.sequence,
        "field_t": str(hospital.scanner.field_t),
        **followed_up(anatomy, hospital.outlook, _generator(seed, patient, "outlook")),
    }


def _on_grid_of(scanner: ScannerConfig, protocol: ScannerConfig) -> ScannerConfig:
    return replace(
        protocol,
        in_plane_mm=scanner.in_plane_mm,
        slice_mm=scanner.slice_mm,
        orientation=scanner.orientation,
    )


def _save(path: Path, array: NDArray[np.generic], affine: NDArray[np.float64]) -> None:
    # Not compressed: a gzip header holds the time, and equal seeds would give other bytes.
    image = nib.Nifti1Image(array, affine)
    image.header.set_xyzt_units("mm")
    image.set_qform(affine, code="scanner")
    image.set_sform(affine, code="scanner")
    nib.save(image, path)


def _overlay_file(row: ImageRow, scanner: ScannerConfig, path: Path, seed: int) -> None:
    source = nib.load(row.image)
    image_XYZ = np.asarray(source.dataobj, np.float32)
    x_mm, y_mm, z_mm = ([float(mm) for mm in source.header.get_zooms()] + [1.0, 1.0, 1.0])[:3]
    rng = _generator(seed, row.patient, row.image.name)
    seen_XYZ = overlay(image_XYZ, (x_mm, y_mm, z_mm), scanner, rng)
    image = nib.Nifti1Image(seen_XYZ, source.affine, source.header)
    image.set_data_dtype(np.float32)
    nib.save(image, path)


def _columns(row: ImageRow) -> dict[str, str]:
    """Return the row as columns, without those that it does not have."""
    mask = None if row.mask is None else str(row.mask.resolve())
    fixed = {"mask": mask, "label": row.label, "patient": row.patient, "split": row.split}
    known = {name: value for name, value in fixed.items() if value is not None}
    return {"image": row.image.name, **known, **row.covariates}


def _write_manifest(path: Path, rows: Sequence[Mapping[str, str]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def _make_once(folder: Path, settings: Mapping[str, object], fill: Callable[[Path], None]) -> Path:
    """Return the folder's manifest, filling the folder first unless these settings made it."""
    settings = {"recipe": _RECIPE, **settings}
    if (folder / MARKER).is_file():
        if read_json(folder / MARKER) == settings:
            return folder / MANIFEST
        raise ValueError(
            f"{folder} was made with other settings (see {MARKER} in it); "
            "choose another folder, or delete it to have it made again"
        )
    if folder.exists() and any(folder.iterdir()):
        raise ValueError(
            f"{folder} is not empty and was not made here; choose another folder or empty it"
        )
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    fill(partial)
    write_json(partial / MARKER, settings)
    if folder.exists():
        folder.rmdir()
    partial.rename(folder)
    return folder / MANIFEST


def _generator(seed: int, *labels: str) -> np.random.Generator:
    return np.random.default_rng(derive_seed(seed, *labels))
