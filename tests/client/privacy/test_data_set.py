import random
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from client.manifest import Row
from client.privacy.data_set import DataSet, data_set_of


def rows_in(folder: Path, patients: int = 3) -> list[Row]:
    """Write two images and masks a patient."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for patient in range(patients):
        for number in range(2):
            image, mask = folder / f"{patient}-{number}.png", folder / f"{patient}-{number}-m.png"
            image.write_bytes(bytes([patient, number]))
            mask.write_bytes(bytes([number, patient, 7]))
            rows.append(Row(image=image, mask=mask, label="a", patient=f"p{patient}"))
    return rows


@settings(max_examples=20)
@given(seed=st.integers(0, 1000))
def test_fingerprint_does_not_depend_on_the_order_of_rows(
    seed: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    rows = rows_in(tmp_path_factory.mktemp("rows"))
    shuffled = random.Random(seed).sample(rows, len(rows))
    assert data_set_of(shuffled) == data_set_of(rows)


def test_fingerprint_does_not_depend_on_the_folder_the_split_or_covariates(tmp_path: Path) -> None:
    here = data_set_of(rows_in(tmp_path / "here"))
    there = [
        Row(
            image=row.image.rename(row.image.with_name("x" + row.image.name)),
            mask=row.mask,
            label=row.label,
            patient=row.patient,
            split="train",
            covariates={"age": "40"},
        )
        for row in rows_in(tmp_path / "there")
    ]
    assert data_set_of(there) == here


@pytest.mark.parametrize("what", ["image", "mask", "label", "patient", "fewer", "no mask"])
def test_fingerprint_changes_with_every_part_of_a_row(tmp_path: Path, what: str) -> None:
    rows = rows_in(tmp_path)
    before = data_set_of(rows)
    first = rows[0]
    values = {"image": first.image, "mask": first.mask, "label": first.label, "patient": "p0"}
    if what in ("image", "mask"):
        (tmp_path / "other.png").write_bytes(b"other")
        values[what] = tmp_path / "other.png"
    elif what in ("label", "patient"):
        values[what] = "b"
    elif what == "no mask":
        values["mask"] = None
    changed = [] if what == "fewer" else [Row(**values)]  # type: ignore[arg-type]
    assert data_set_of([*changed, *rows[1:]]).fingerprint != before.fingerprint


def test_patients_are_counted_once(tmp_path: Path) -> None:
    assert data_set_of(rows_in(tmp_path)).patients == {"p0", "p1", "p2"}


def test_a_folder_of_slices_is_one_image_whatever_its_files_are_called(tmp_path: Path) -> None:
    fingerprints = set()
    for names in (("a.dcm", "b.dcm"), ("2.dcm", "1.dcm")):
        folder = tmp_path / names[0]
        folder.mkdir()
        for name, content in zip(names, (b"one", b"two"), strict=True):
            (folder / name).write_bytes(content)
        (folder / ".hidden").write_bytes(names[0].encode())
        fingerprints.add(data_set_of([Row(image=folder, patient="p")]).fingerprint)
    assert len(fingerprints) == 1


def test_a_missing_file_counts_as_missing_and_its_return_as_a_change(tmp_path: Path) -> None:
    rows = rows_in(tmp_path)
    whole = data_set_of(rows)
    rows[0].image.unlink()
    assert data_set_of(rows).fingerprint == data_set_of(rows).fingerprint != whole.fingerprint


def test_sequences_count_and_a_cell_that_names_no_file_is_none(tmp_path: Path) -> None:
    rows = rows_in(tmp_path)
    before = data_set_of(rows)
    said = [replace(row, sequences={"quality": tmp_path / "good"}) for row in rows]
    assert data_set_of(said) == before
    seen = [replace(row, sequences={"t1": row.image}) for row in rows]
    assert data_set_of(seen).fingerprint != before.fingerprint


def test_no_rows_are_no_data_set() -> None:
    with pytest.raises(ValueError, match="without patients"):
        data_set_of([])


def test_what_is_not_a_sha256_is_refused() -> None:
    with pytest.raises(ValueError, match="fingerprint='abc'"):
        DataSet(fingerprint="abc", patients=frozenset({"p"}))
