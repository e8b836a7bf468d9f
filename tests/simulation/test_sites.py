import csv
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from client.manifest import read_manifest
from client.outbox import site_key
from client.site import load_site
from common.config import compose, load_study, study_of
from simulation.config import simulation_of
from simulation.sites import SITES, check_columns, prepare_sites

VIRTUAL = (
    "simulation=virtual",
    "+simulation.hospitals.small={scanner: flair_1p5t, patients: 1, held_out: 0.0}",
    "+simulation.hospitals.large={scanner: flair_1p5t, patients: 2, held_out: 0.5}",
)


def prepared(folder: Path, *overrides: str) -> tuple[list[str], list[str]]:
    """Return the hospitals' names and those that were made."""
    tree = compose(list(overrides))
    made: list[str] = []
    names = prepare_sites(folder, tree, study_of(tree), simulation_of(tree), made.append)
    return names, made


def content(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def virtual(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """A folder of two virtual hospitals, and their names."""
    folder = tmp_path_factory.mktemp("virtual")
    names, made = prepared(folder, *VIRTUAL)
    assert made == names
    return folder, names


def test_hospitals_stand_on_disk_largest_first(virtual: tuple[Path, list[str]]) -> None:
    folder, names = virtual
    assert names == ["large", "small"]
    assert sorted(path.name for path in (folder / SITES).iterdir()) == ["000-large", "001-small"]


def test_a_virtual_hospital_is_read_as_a_real_one(virtual: tuple[Path, list[str]]) -> None:
    folder, _ = virtual
    site = load_site(folder / SITES / "000-large" / "site.yaml")
    assert (site.name, site.device) == ("large", "cpu")
    rows = read_manifest(site.manifest_path)
    assert sorted(str(row.split) for row in rows) == ["test", "train"]
    assert all(row.image.is_file() for row in rows)


def test_a_folder_that_is_moved_still_finds_its_images(virtual: tuple[Path, list[str]]) -> None:
    folder, _ = virtual
    text = (folder / SITES / "000-large" / "site.yaml").read_text()
    assert str(folder) not in text


def test_a_run_that_goes_on_leaves_what_is_complete(virtual: tuple[Path, list[str]]) -> None:
    folder, names = virtual
    before = content(folder)
    assert prepared(folder, *VIRTUAL)[0] == names
    assert content(folder) == before


def test_every_simulated_site_has_a_key_of_its_own_that_the_seed_gives(
    virtual: tuple[Path, list[str]],
) -> None:
    folder, _ = virtual
    keys = [site_key(folder / SITES / name / "state") for name in ("000-large", "001-small")]
    assert keys[0] != keys[1]
    assert site_key(folder / SITES / "000-large" / "state") == keys[0]


def real(folder: Path, patients: int = 6) -> Path:
    """Write a data set of volumes with a manifest, as a public one comes."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    rows = []
    for patient in range(patients):
        mask = np.zeros((8, 8, 4), np.uint8)
        mask[2:5, 2:5] = 1
        image = (rng.uniform(1, 2, mask.shape) + mask).astype(np.float32)
        for array, name in ((image, f"{patient}.nii"), (mask, f"{patient}-mask.nii")):
            nib.save(nib.Nifti1Image(array, np.eye(4)), folder / name)
        rows.append(
            {
                "path": f"{patient}.nii",
                "mask": f"{patient}-mask.nii",
                "site": ("north", "south")[patient % 2],
            }
        )
    with (folder / "manifest.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return folder


def dealt(root: Path) -> tuple[str, ...]:
    return (
        "simulation=real",
        f"data.root={root}",
        "+simulation.partition.by=column",
        "+simulation.partition.columns=[site]",
        "+simulation.partition.label_column=null",
    )


def test_a_real_data_set_is_dealt_to_hospitals_by_its_column(tmp_path: Path) -> None:
    root = real(tmp_path / "root")
    names, made = prepared(tmp_path / "run", *dealt(root))
    assert sorted(names) == ["north", "south"]
    assert made == []
    patients = [
        {row.patient for row in read_manifest(load_site(path).manifest_path)}
        for path in sorted((tmp_path / "run" / SITES).glob("*/site.yaml"))
    ]
    assert patients[0].isdisjoint(patients[1])
    assert set.union(*patients) == {str(number) for number in range(6)}


def test_a_scanner_laid_over_a_hospital_changes_images_and_leaves_masks(tmp_path: Path) -> None:
    root = real(tmp_path / "root")
    overlay = "simulation.overlay=[flair_3t,se_t1_1p5t]"
    names, made = prepared(tmp_path / "run", *dealt(root), overlay)
    assert made == names
    for path in (tmp_path / "run" / SITES).glob("*/site.yaml"):
        for row in read_manifest(load_site(path).manifest_path):
            assert row.mask is not None
            assert row.mask.parent == root
            before = np.asarray(nib.load(root / f"{row.patient}.nii").dataobj)
            after = np.asarray(nib.load(row.image).dataobj)
            assert before.shape == after.shape
            assert not np.allclose(before, after)


def test_one_scanner_a_hospital_is_asked(tmp_path: Path) -> None:
    root = real(tmp_path / "root")
    with pytest.raises(ValueError, match="names 1 scanners for 2 hospitals"):
        prepared(tmp_path / "run", *dealt(root), "simulation.overlay=[flair_3t]")


@pytest.mark.parametrize(("column", "there"), [("age", True), ("agee", False)])
def test_subgroups_by_a_column_that_nobody_has_are_refused(
    column: str, there: bool, virtual: tuple[Path, list[str]]
) -> None:
    folder, _ = virtual
    study = load_study(["evaluation=shift", f"evaluation.subgroups={{{column}: [50]}}"])
    if there:
        check_columns(folder, study)
        return
    with pytest.raises(ValueError, match=r"'agee', which no hospital's manifest has.*: .*age"):
        check_columns(folder, study)
