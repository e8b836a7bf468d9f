"""What people decide is kept with their name, and only what it is about changes."""

import csv
import gzip
import json
import stat
import subprocess
import sys
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
    CORRECTED,
    CORRECTING,
    DATE,
    REJECTED,
    Log,
    Reviewer,
    corrected_label,
    corrected_mask,
    decided,
)
from common.schema import SettingsError
from common.study import Study
from tests.builders import PICTURES, SLICES, pictures_site, study_from, volumes_site

VOLUMES, LABELS = study_from(*SLICES), study_from(*PICTURES)


def by(manifest: Path, study: Study = LABELS, author: str = "dr-lee") -> Reviewer:
    """Return a person who corrects a manifest."""
    log = Log(manifest.parent.parent / "state", "f" * 64, "0" * 64)
    return Reviewer(author=author, manifest=manifest, study=study, log=log)


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
    told = corrected_mask(by(manifest, VOLUMES), row, content, "new.nii.gz")
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
    corrected_label(by(manifest), row, "pneumonia")
    again = Ledger.open(tmp_path / "ledgers", data_set_of(read_manifest(manifest)))
    assert again.path == first.path


def test_a_corrected_label_is_the_rows_label(tmp_path: Path) -> None:
    manifest = pictures_site(tmp_path / "site").parent / "manifest.csv"
    row = read_manifest(manifest)[0]
    told = corrected_label(by(manifest), row, "pneumonia")
    assert (told.before, told.after) == ("normal", "pneumonia")
    assert read_manifest(manifest)[0].label == "pneumonia"
    with pytest.raises(BadFileError, match="which the task does not have"):
        corrected_label(by(manifest), read_manifest(manifest)[0], "flu")


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
    with pytest.raises(BadFileError, match=f"^{name} .*{why}"):
        corrected_mask(by(manifest, VOLUMES), row, content, name)
    assert manifest.read_bytes() == before
    assert list((manifest.parent / "corrected").iterdir()) == []


def test_a_manifest_that_was_changed_meanwhile_is_not_written_over(tmp_path: Path) -> None:
    manifest = pictures_site(tmp_path / "site").parent / "manifest.csv"
    row = read_manifest(manifest)[0]
    lines = manifest.read_text().splitlines()
    manifest.write_text("\n".join([lines[0], *lines[2:]]))
    with pytest.raises(SettingsError, match=r"has 0 rows of 0-0\.png .*it was changed"):
        corrected_label(by(manifest), row, "pneumonia")


def test_a_folder_without_a_manifest_takes_no_correction(tmp_path: Path) -> None:
    site = pictures_site(tmp_path / "site")
    row = read_manifest(site.parent / "manifest.csv")[0]
    with pytest.raises(SettingsError, match="is no table"):
        corrected_label(by(site.parent), row, "pneumonia")


def test_the_newest_decision_counts_and_all_are_kept(tmp_path: Path) -> None:
    manifest = pictures_site(tmp_path / "site").parent / "manifest.csv"
    row, log = read_manifest(manifest)[0], Log(tmp_path / "state", "f" * 64, "0" * 64)
    assert log.newest() == {}
    log.add(decided(row, manifest, ACCEPTED, "dr-lee", ""))
    log.add(decided(row, manifest, ACCEPTED, "dr-kim", ""))
    with log.path.open("a") as file:
        file.write('{"image": "0-0.png", "deci')
    log.add(decided(row, manifest, REJECTED, "dr-kim", "too small"))
    (newest,) = Log(tmp_path / "state", "f" * 64, "0" * 64).newest().values()
    assert (newest.decision, newest.author, newest.note) == (REJECTED, "dr-kim", "too small")
    assert json.loads(log.path.read_text().splitlines()[0])["decision"] == ACCEPTED
    assert Log(tmp_path / "state", "f" * 64, "1" * 64).newest() == {}
    assert stat.S_IMODE(log.path.stat().st_mode) == 0o600


_CORRECTS = """
import sys
from pathlib import Path

from client.manifest import read_manifest
from tests.client.review.test_decisions import by, corrected_label

manifest = Path(sys.argv[1])
for row in read_manifest(manifest)[int(sys.argv[2]) :: 2]:
    corrected_label(by(manifest), row, "pneumonia" if row.label == "normal" else "normal")
"""


def test_two_people_at_once_lose_nothing(tmp_path: Path) -> None:
    manifest = pictures_site(tmp_path / "site", train=8, test=0).parent / "manifest.csv"
    before = [row.label for row in read_manifest(manifest)]
    people = [
        subprocess.Popen([sys.executable, "-c", _CORRECTS, str(manifest), str(first)])
        for first in range(2)
    ]
    assert [person.wait(60) for person in people] == [0, 0]
    after = [row.label for row in read_manifest(manifest)]
    assert all(a != b for a, b in zip(after, before, strict=True))
    log = by(manifest).log
    assert len(log.newest()) == 8
    said = [json.loads(line)["decision"] for line in log.path.read_text().splitlines()]
    assert sorted(said) == [CORRECTED] * 8 + [CORRECTING] * 8


def test_a_label_that_another_person_put_right_meanwhile_is_not_written_over(
    tmp_path: Path,
) -> None:
    manifest = pictures_site(tmp_path / "site").parent / "manifest.csv"
    row = read_manifest(manifest)[0]
    corrected_label(by(manifest, author="dr-lee"), row, "pneumonia")
    with pytest.raises(SettingsError, match="was changed since the page"):
        corrected_label(by(manifest, author="dr-kim"), row, "normal")
    assert read_manifest(manifest)[0].label == "pneumonia"


def test_a_change_is_written_down_before_it_is_made(tmp_path: Path) -> None:
    manifest = pictures_site(tmp_path / "site").parent / "manifest.csv"
    row = read_manifest(manifest)[0]
    # As on a full disk: the manifest's new content cannot be put beside it.
    (manifest.parent / ".manifest.csv.tmp").mkdir()
    with pytest.raises(OSError, match="manifest"):
        corrected_label(by(manifest), row, "pneumonia")
    (last,) = by(manifest).log.newest().values()
    assert (last.decision, last.before, last.after) == (CORRECTING, "normal", "pneumonia")


def test_a_linked_manifest_is_changed_where_it_lies(tmp_path: Path) -> None:
    manifest = pictures_site(tmp_path / "site").parent / "manifest.csv"
    manifest.rename(tmp_path / "master.csv")
    manifest.symlink_to(tmp_path / "master.csv")
    corrected_label(by(manifest), read_manifest(manifest)[0], "pneumonia")
    assert manifest.is_symlink()
    assert cells_of(tmp_path / "master.csv")[0]["label"] == "pneumonia"


def test_of_two_rows_of_an_image_the_one_that_was_shown_is_corrected(tmp_path: Path) -> None:
    manifest = pictures_site(tmp_path / "site").parent / "manifest.csv"
    first = manifest.read_text().splitlines()[1]
    with manifest.open("a") as file:
        file.write(first.replace("normal", "pneumonia") + "\n")
    corrected_label(by(manifest), read_manifest(manifest)[-1], "normal")
    assert [cells["label"] for cells in cells_of(manifest) if cells["image"] == "0-0.png"] == [
        "normal",
        "normal",
    ]
    (told,) = [cells for cells in cells_of(manifest) if cells[AUTHOR]]
    assert told == cells_of(manifest)[-1]


def test_a_mask_of_another_size_is_refused_before_its_voxels_are_read(tmp_path: Path) -> None:
    manifest = volumes_site(tmp_path / "site").parent / "manifest.csv"
    header = nib.Nifti1Header()
    header.set_data_shape((4000, 4000, 4000))
    # A header alone: whoever reads voxels fails with other words.
    content = gzip.compress(header.binaryblock + bytes(4))
    with pytest.raises(BadFileError, match=r"has the shape \(4000, 4000, 4000\)"):
        corrected_mask(by(manifest, VOLUMES), read_manifest(manifest)[0], content, "m.nii.gz")
