import csv
from collections import Counter
from pathlib import Path

import pytest

from simulation.partition import PartitionConfig, partition
from simulation.patients import listed, patient_of, read_patients

PNEUMONIA = r"(person\d+)|(?:(NORMAL2)-)?IM-(\d+)"
RETINA = r"Image_(\d+)[LR]|(\d+)_(dr|g|h)\."
SPINAL = r"(sub-\d+)"


@pytest.mark.parametrize(
    ("image", "pattern", "patient"),
    [
        ("cxr/test/PNEUMONIA/person1_virus_6.jpeg", PNEUMONIA, "person1"),
        ("cxr/train/NORMAL/IM-0115-0001.jpeg", PNEUMONIA, "0115"),
        ("cxr/test/NORMAL/NORMAL2-IM-0115-0001-0002.jpeg", PNEUMONIA, "NORMAL2-0115"),
        ("CHASE_DB1/images/Image_01L.jpg", RETINA, "01"),
        ("CHASE_DB1/images/Image_01R.jpg", RETINA, "01"),
        ("HRF/images/01_dr.jpg", RETINA, "01-dr"),
        ("HRF/images/01_h.jpg", RETINA, "01-h"),
        ("sub-9709Ses2/sub-9709Ses2_run-1_T2starw.nii.gz", SPINAL, "sub-9709"),
        ("images/hippocampus_001.nii.gz", "", "hippocampus_001"),
        ("images/1.2.840.png", "(nobody)", "1.2.840"),
    ],
)
def test_pattern_names_the_patient(image: str, pattern: str, patient: str) -> None:
    assert patient_of(image, pattern) == patient


def test_long_lists_are_cut_with_their_count() -> None:
    assert listed(["b", "a"]) == "a, b"
    assert listed(f"{k:02d}" for k in range(15)).endswith("11 and 3 more")


def read(manifest: Path) -> list[dict[str, str]]:
    with manifest.open(newline="") as file:
        return list(csv.DictReader(file))


def patients(rows: list[dict[str, str]]) -> set[str]:
    return {row["patient"] for row in rows}


def test_pneumonia_files_name_the_patients(shared_data: Path, tmp_path: Path) -> None:
    config = PartitionConfig(
        where={"dataset": "cxr_pneumonia"},
        patient_pattern=PNEUMONIA,
        by="dirichlet",
        alpha=0.3,
        held_out="shared",
    )
    manifests = partition(shared_data, config, 0, tmp_path)
    hospitals = {site: read(path) for site, path in manifests.items()}
    everyone = [row for rows in hospitals.values() for row in rows]
    assert len(everyone) == 1876
    others = [r for r in everyone if not r["note"].endswith(f"patient {of_note(r['patient'])}")]
    # The data set's own note names the patient of each file; one file is there under two names.
    assert [Path(row["image"]).name for row in others] == ["NORMAL2-IM-0096-0001.jpeg"]
    assert {row["patient"] for row in others} == {"NORMAL2-0095"}
    assert sum(len(patients(rows)) for rows in hospitals.values()) == 1094


def test_patients_who_share_an_image_are_one(tmp_path: Path) -> None:
    for name, content in {"a_1": b"1", "b_1": b"2", "b_2": b"1", "c_1": b"3"}.items():
        (tmp_path / f"{name}.png").write_bytes(content)
    lines = ["path,site", *(f"{name}.png,x" for name in ("a_1", "b_1", "b_2", "c_1"))]
    (tmp_path / "manifest.csv").write_text("\n".join(lines) + "\n")
    config = PartitionConfig(
        patient_pattern="([a-c])_", mask_column=None, label_column=None, by="equal", sites=2
    )
    assert [patient.name for patient in read_patients(tmp_path, config)] == ["a", "c"]


def of_note(patient: str) -> str:
    if patient.startswith("person"):
        return patient
    return f"NORMAL2-IM-{patient[8:]}" if patient.startswith("NORMAL2") else f"IM-{patient}"


def test_both_eyes_of_a_child_are_one_patient(shared_data: Path, tmp_path: Path) -> None:
    config = PartitionConfig(
        where={"dataset": "retina_vessels"}, patient_pattern=RETINA, split_column="split"
    )
    manifests = partition(shared_data, config, 0, tmp_path)
    assert list(manifests) == ["HRF", "CHASE_DB1"]
    chase, hrf = read(manifests["CHASE_DB1"]), read(manifests["HRF"])
    assert Counter(row["patient"] for row in chase) == {f"{k:02d}": 2 for k in range(1, 15)}
    assert len(patients(hrf)) == len(hrf) == 42
    assert not patients(chase) & patients(hrf)
    assert Path(hrf[0]["image"]).is_file()
    assert Path(hrf[0]["mask"]).is_file()


def test_sessions_of_one_person_are_one_patient(shared_data: Path, tmp_path: Path) -> None:
    config = PartitionConfig(
        where={"dataset": "spinalcord_gm"}, patient_pattern=SPINAL, min_patients_per_site=1
    )
    manifests = partition(shared_data, config, 0, tmp_path)
    milan = read(manifests["Milan"])
    assert patients(milan) == {"sub-9709"}
    assert len(milan) == 2
    assert {len(patients(read(path))) for path in manifests.values()} == {1}


def test_hippocampus_file_is_the_patient(shared_data: Path, tmp_path: Path) -> None:
    config = PartitionConfig(where={"dataset": "hippocampus_msd"}, by="equal", sites=5)
    manifests = partition(shared_data, config, 0, tmp_path)
    found = [patients(read(path)) for path in manifests.values()]
    assert [len(p) for p in found] == [52] * 5
    assert "hippocampus_001" in set.union(*found)
