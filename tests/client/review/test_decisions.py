"""What people decide is kept with their name, and only what it is about changes."""

import csv
import json
import stat
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from client.manifest import read_manifest
from client.privacy.data_set import data_set_of
from client.privacy.ledger import Ledger
from client.readers import BadFileError, read_mask
from client.review.decisions import (
    ACCEPTED,
    AUTHOR,
    DATE,
    REJECTED,
    Log,
    corrected_label,
    corrected_mask,
    decided,
)
from common.schema import SettingsError
from tests.builders import PICTURES, SLICES, pictures_site, study_from, volumes_site

VOLUMES, LABELS = study_from(*SLICES), study_from(*PICTURES)


def cells_of(manifest: Path) -> list[dict[str, str]]:
    with manifest.open(newline="") as file:
        return list(csv.DictReader(file))


def drawn(shape: tuple[int, ...], affine: np.ndarray, path: Path) -> bytes:
    mask = np.zeros(shape, np.uint8)
    mask[2:5, 2:5, 1:] = 1
    nib.save(nib.Nifti1Image(mask, affine), path)
    return path.read_bytes()


def test_a_corrected_mask_is_the_rows_mask_with_its_author_and_date(tmp_path: Path) -> None:
    manifest = volumes_site(tmp_path / "site").parent / "manifest.csv"
    before, row = cells_of(manifest), read_manifest(manifest)[1]
    image = nib.load(row.image)
    content = drawn(image.shape, image.affine, tmp_path / "new.nii.gz")
    told = corrected_mask(manifest, row, content, "new.nii.gz", VOLUMES, "dr-lee")
    after = cells_of(manifest)
    new = read_manifest(manifest)[1]
    assert new.mask is not None
    assert (read_mask(new.mask).array_CS == 1).sum() == 18
    assert (after[1][AUTHOR], after[1][DATE]) == ("dr-lee", told.at)
    assert (told.before, told.after) == ("1-mask.nii", after[1]["mask"])
    assert (manifest.parent / told.before).is_file()
    for place in (0, 2, 3):
        assert {name: after[place][name] for name in before[place]} == before[place]
        assert (after[place][AUTHOR], after[place][DATE]) == ("", "")


def test_the_ledger_knows_the_patients_again_after_a_correction(tmp_path: Path) -> None:
    manifest = pictures_site(tmp_path / "site").parent / "manifest.csv"
    first = Ledger.open(tmp_path / "ledgers", data_set_of(read_manifest(manifest)))
    row = read_manifest(manifest)[0]
    corrected_label(manifest, row, "pneumonia", LABELS, "dr-lee")
    again = Ledger.open(tmp_path / "ledgers", data_set_of(read_manifest(manifest)))
    assert again.path == first.path


def test_a_corrected_label_is_the_rows_label(tmp_path: Path) -> None:
    manifest = pictures_site(tmp_path / "site").parent / "manifest.csv"
    row = read_manifest(manifest)[0]
    told = corrected_label(manifest, row, "pneumonia", LABELS, "dr-lee")
    assert (told.before, told.after) == ("normal", "pneumonia")
    assert read_manifest(manifest)[0].label == "pneumonia"
    with pytest.raises(BadFileError, match="which the task does not have"):
        corrected_label(manifest, read_manifest(manifest)[0], "flu", LABELS, "dr-lee")


@pytest.mark.parametrize(
    ("shape", "spacing_mm", "name", "why"),
    [
        ((16, 16, 2), 5.0, "new.nii.gz", "has the shape"),
        ((16, 16, 3), 50.0, "new.nii.gz", "away from its image"),
        ((16, 16, 3), 5.0, "new.exe", "which no reader knows"),
        ((16, 16, 3), 5.0, "new.png", "broken or not a picture"),
    ],
)
def test_a_mask_that_cannot_be_used_changes_nothing(
    tmp_path: Path, shape: tuple[int, ...], spacing_mm: float, name: str, why: str
) -> None:
    manifest = volumes_site(tmp_path / "site").parent / "manifest.csv"
    before, row = manifest.read_bytes(), read_manifest(manifest)[0]
    content = drawn(shape, np.diag([1.0, 1.0, spacing_mm, 1.0]), tmp_path / "new.nii.gz")
    with pytest.raises(BadFileError, match=why):
        corrected_mask(manifest, row, content, name, VOLUMES, "dr-lee")
    assert manifest.read_bytes() == before
    assert list((manifest.parent / "corrected").iterdir()) == []


def test_a_manifest_that_was_changed_meanwhile_is_not_written_over(tmp_path: Path) -> None:
    manifest = pictures_site(tmp_path / "site").parent / "manifest.csv"
    row = read_manifest(manifest)[0]
    lines = manifest.read_text().splitlines()
    manifest.write_text("\n".join([lines[0], *lines[2:]]))
    with pytest.raises(SettingsError, match=r"has 0 rows of 0-0\.png; it was changed"):
        corrected_label(manifest, row, "pneumonia", LABELS, "dr-lee")


def test_a_folder_without_a_manifest_takes_no_correction(tmp_path: Path) -> None:
    site = pictures_site(tmp_path / "site")
    row = read_manifest(site.parent / "manifest.csv")[0]
    with pytest.raises(SettingsError, match="is no table"):
        corrected_label(site.parent, row, "pneumonia", LABELS, "dr-lee")


def test_the_newest_decision_counts_and_all_are_kept(tmp_path: Path) -> None:
    manifest = pictures_site(tmp_path / "site").parent / "manifest.csv"
    row, log = read_manifest(manifest)[0], Log(tmp_path / "state", "f" * 64)
    assert log.newest() == {}
    log.add(decided(row, manifest, ACCEPTED, "dr-lee", ""))
    log.add(decided(row, manifest, REJECTED, "dr-kim", "too small"))
    with log.path.open("a") as file:
        file.write('{"image": "0-0.png", "deci')
    (newest,) = Log(tmp_path / "state", "f" * 64).newest().values()
    assert (newest.decision, newest.author, newest.note) == (REJECTED, "dr-kim", "too small")
    assert json.loads(log.path.read_text().splitlines()[0])["decision"] == ACCEPTED
    assert stat.S_IMODE(log.path.stat().st_mode) == 0o600
