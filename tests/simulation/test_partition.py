import csv
import random
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from client.manifest import read_manifest
from simulation.partition import PartitionConfig, partition

COLUMNS = ["path", "site", "country", "split", "label", "mask", "age"]
DEALT = ("dirichlet", "quantity", "equal")


def rows_of(patients: int, images_each: int = 2) -> list[dict[str, str]]:
    return [
        {
            "path": f"images/p{patient:03d}_{image}.png",
            "site": f"clinic {patient % 3}",
            "country": "UK" if patient % 3 else "n/a",
            "split": "test" if patient % 4 == 0 else "training",
            "label": ("normal", "sick")[patient % 2],
            "mask": f"masks/p{patient:03d}_{image}.png",
            "age": str(20 + patient),
        }
        for patient in range(patients)
        for image in range(images_each)
    ]


def write(folder: Path, rows: list[dict[str, str]], name: str = "manifest.csv") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / name).open("w", newline="") as file:
        delimiter = "\t" if name.endswith(".tsv") else ","
        writer = csv.DictWriter(file, COLUMNS, delimiter=delimiter)
        writer.writeheader()
        writer.writerows(rows)
    return folder


def read(manifest: Path) -> list[dict[str, str]]:
    with manifest.open(newline="") as file:
        return list(csv.DictReader(file))


def settings_of(**given: object) -> PartitionConfig:
    return PartitionConfig(**{"patient_pattern": r"(p\d+)_", **given})  # type: ignore[arg-type]


def dealt(root: Path, config: PartitionConfig, seed: int = 0) -> dict[str, list[dict[str, str]]]:
    manifests = partition(root, config, seed, root / "sites")
    return {site: read(path) for site, path in manifests.items()}


def patients(rows: list[dict[str, str]]) -> set[str]:
    return {row["patient"] for row in rows}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write(tmp_path, rows_of(60))


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    by=st.sampled_from(("column", *DEALT)),
    sites=st.integers(1, 6),
    alpha=st.floats(0.05, 50),
    held_out=st.sampled_from(("own", "shared")),
    seed=st.integers(0, 1000),
)
def test_every_image_lands_once_and_no_patient_at_two_hospitals(
    tmp_path: Path, by: str, sites: int, alpha: float, held_out: str, seed: int
) -> None:
    root = write(tmp_path, rows_of(40))
    held_out = "own" if by == "column" else held_out
    config = settings_of(by=by, sites=sites, alpha=alpha, held_out=held_out)
    try:
        hospitals = dealt(root, config, seed)
    except ValueError as error:
        assert "min_patients_per_site" in str(error)  # noqa: PT017 - a skew may be too strong
        return
    images = Counter(row["image"] for rows in hospitals.values() for row in rows)
    assert images == Counter(str(root / row["path"]) for row in rows_of(40))
    assert sum(len(patients(rows)) for rows in hospitals.values()) == 40


@pytest.mark.parametrize("by", ["column", *DEALT])
def test_partition_does_not_depend_on_the_order_of_rows(tmp_path: Path, by: str) -> None:
    rows = rows_of(40)
    config = settings_of(by=by, sites=3, alpha=3.0)
    first = partition(write(tmp_path, rows), config, 5, tmp_path / "a")
    random.Random(1).shuffle(rows)
    second = partition(write(tmp_path, rows), config, 5, tmp_path / "b")
    assert list(first) == list(second)
    assert [p.read_bytes() for p in first.values()] == [p.read_bytes() for p in second.values()]


@pytest.mark.parametrize("by", DEALT)
def test_another_seed_deals_otherwise(root: Path, by: str) -> None:
    config = settings_of(by=by, sites=3, alpha=5.0)
    assert dealt(root, config, 0) != dealt(root, config, 1)


@pytest.mark.parametrize("by", ["column", *DEALT])
def test_largest_hospital_comes_first(root: Path, by: str) -> None:
    config = settings_of(by=by, sites=4, alpha=1.0, min_patients_per_site=1)
    sizes = [len(patients(rows)) for rows in dealt(root, config).values()]
    assert sizes == sorted(sizes, reverse=True)


@pytest.mark.parametrize("sites", [1, 3, 7])
def test_equal_shares_differ_by_one_patient_at_most(root: Path, sites: int) -> None:
    hospitals = dealt(root, settings_of(by="equal", sites=sites))
    assert set(hospitals) == {f"hospital-{k + 1}" for k in range(sites)}
    sizes = [len(patients(rows)) for rows in hospitals.values()]
    assert max(sizes) - min(sizes) <= 1


def share_of_sick(rows: list[dict[str, str]]) -> float:
    return float(np.mean([row["label"] == "sick" for row in rows]))


def test_label_skew_shrinks_as_alpha_grows(tmp_path: Path) -> None:
    root = write(tmp_path, rows_of(400, 1))

    def spread(alpha: float) -> float:
        config = settings_of(by="dirichlet", alpha=alpha, min_patients_per_site=1)
        return float(np.ptp([share_of_sick(rows) for rows in dealt(root, config, 3).values()]))

    assert spread(0.3) > 0.5
    assert spread(1000.0) < 0.1


def test_label_skew_of_several_labels_is_by_the_first_whatever_their_order(tmp_path: Path) -> None:
    rows = rows_of(400, 1)
    for number, row in enumerate(rows):
        labels = [row["label"], *["", "x", "y", "z"][number % 4]]
        row["label"] = "|".join(labels if number % 3 else reversed(labels))
    root = write(tmp_path, rows)
    config = settings_of(by="dirichlet", alpha=0.3, min_patients_per_site=1)
    hospitals = dealt(root, config, 3)
    sick = [np.mean(["sick" in row["label"] for row in rows]) for rows in hospitals.values()]
    assert max(sick) - min(sick) > 0.5


def test_quantity_skew_keeps_the_case_mix(tmp_path: Path) -> None:
    root = write(tmp_path, rows_of(900, 1))
    config = settings_of(by="quantity", sites=3, alpha=2.0, min_patients_per_site=50)
    hospitals = dealt(root, config, 1)
    sizes = [len(rows) for rows in hospitals.values()]
    assert max(sizes) > 2 * min(sizes)
    assert all(abs(share_of_sick(rows) - 0.5) < 0.15 for rows in hospitals.values())


def test_patient_of_two_labels_travels_with_both_images(tmp_path: Path) -> None:
    rows = rows_of(20)
    for row in rows:
        row["label"] = "normal" if row["path"].endswith("_0.png") else "sick"
    hospitals = dealt(write(tmp_path, rows), settings_of(by="dirichlet", sites=2, alpha=9.0))
    for own in hospitals.values():
        assert Counter(row["patient"] for row in own) == dict.fromkeys(patients(own), 2)


def test_own_test_patients_leave_the_split_to_the_site(root: Path) -> None:
    for rows in dealt(root, settings_of(by="equal")).values():
        assert all("split" not in row for row in rows)
        assert {row["original_split"] for row in rows} == {"training", "test"}


def test_shared_test_patients_have_the_same_case_mix_at_every_hospital(root: Path) -> None:
    config = settings_of(by="dirichlet", sites=3, alpha=0.5, held_out="shared", shared_fraction=0.4)
    for rows in dealt(root, config, 1).values():
        tested = [row for row in rows if row["split"] == "test"]
        assert len(patients(tested)) == 8
        assert abs(share_of_sick(tested) - 0.5) <= 1 / 8
        assert not patients(tested) & patients([row for row in rows if row["split"] == "train"])


def test_shared_test_patients_do_not_depend_on_the_skew(root: Path) -> None:
    def tested(alpha: float) -> set[str]:
        config = settings_of(by="dirichlet", sites=2, alpha=alpha, held_out="shared")
        rows = [row for own in dealt(root, config).values() for row in own]
        return patients([row for row in rows if row["split"] == "test"])

    assert tested(2.0) == tested(90.0)


def test_split_column_is_obeyed(root: Path) -> None:
    for rows in dealt(root, settings_of(split_column="split")).values():
        for row in rows:
            assert (row["split"] == "test") == (int(row["patient"][1:]) % 4 == 0)


def test_hospital_left_out_tests_and_all_others_train(root: Path) -> None:
    hospitals = dealt(root, settings_of(leave_out="clinic-1"))
    for site, rows in hospitals.items():
        assert {row["split"] for row in rows} == {"test" if site == "clinic-1" else "train"}


def test_where_and_columns_name_the_hospitals(root: Path) -> None:
    config = settings_of(where={"country": "UK"}, columns=["country", "site"])
    assert set(dealt(root, config)) == {"UK-clinic-1", "UK-clinic-2"}
    assert set(dealt(root, settings_of(columns=["country"]))) == {"UK", "n-a"}
    some = settings_of(where={"site": "clinic 0|clinic 2"})
    assert set(dealt(root, some)) == {"clinic-0", "clinic-2"}


def test_manifest_names_absolute_files_and_keeps_the_other_columns(tmp_path: Path) -> None:
    root = write(tmp_path, rows_of(10), "table.tsv")
    config = settings_of(manifest="table.tsv", by="equal", sites=1)
    row = dealt(root, config)["hospital-1"][0]
    assert row == {
        "image": str(root.resolve() / "images/p000_0.png"),
        "mask": str(root.resolve() / "masks/p000_0.png"),
        "label": "normal",
        "patient": "p000",
        "site": "clinic 0",
        "country": "n/a",
        "original_split": "test",
        "age": "20",
    }


def test_column_without_a_value_is_left_out(tmp_path: Path) -> None:
    root = write(tmp_path, [{**row, "mask": ""} for row in rows_of(6)])
    assert all("mask" not in rows[0] for rows in dealt(root, settings_of()).values())


def test_file_stem_is_the_patient_where_nothing_matches(tmp_path: Path) -> None:
    rows = [{**row, "path": row["path"].replace(".png", ".nii.gz")} for row in rows_of(4)]
    config = settings_of(patient_pattern=r"(nobody\d)", by="equal", sites=1)
    found = patients(dealt(write(tmp_path, rows), config)["hospital-1"])
    assert found == {Path(row["path"]).name.removesuffix(".nii.gz") for row in rows}


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"manifest": "none.csv"}, ["none.csv", "not a file", "root"]),
        ({"columns": ["ward"]}, ["'ward'", "it has: path, site"]),
        ({"where": {"country": "FR"}}, ["'FR'", "UK, n/a"]),
        ({"where": {"country": "UK|FR"}}, ["'FR'", "UK, n/a"]),
        ({"leave_out": "mars"}, ["'mars'", "clinic-0, clinic-1, clinic-2"]),
        ({"by": "equal", "sites": 59}, ["min_patients_per_site=2", "lower sites=59"]),
        ({"by": "quantity", "alpha": 0.01}, ["raise alpha=0.01", "change seed=0"]),
        (
            {"by": "equal", "sites": 30, "held_out": "shared", "min_patients_per_site": 1},
            ["shared_fraction=0.2", "sites=30"],
        ),
        (
            {"split_column": "split", "train_values": ["fit"]},
            ["'training'", "train_values ['fit']"],
        ),
        ({"split_column": "split", "patient_pattern": "(images)"}, ["'images'", "training and in"]),
        ({"patient_pattern": "(images)"}, ["3 hospitals", "clinic 0 and clinic 1"]),
        ({"by": "dirichlet", "label_column": "blank"}, ["no column 'blank'"]),
    ],
)
def test_error_names_value_reason_and_way_out(
    root: Path, given: dict[str, object], words: list[str]
) -> None:
    with pytest.raises(ValueError, match=re.escape(words[0])) as error:
        dealt(root, settings_of(**given))
    for word in words:
        assert word in str(error.value)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"site": ""}, "names no hospital"),
        ({"path": ""}, "empty cell 'path'"),
        ({"site": "clinic_0", "path": "p999_0.png"}, None),
        ({"site": "clinic/0", "path": "p999_0.png"}, "both be named 'clinic-0'"),
    ],
)
def test_bad_cell_is_named(tmp_path: Path, change: dict[str, str], words: str | None) -> None:
    rows = rows_of(30)
    root = write(tmp_path, [*rows, {**rows[0], **change}])
    if words is None:
        assert "clinic_0" in dealt(root, settings_of(min_patients_per_site=1))
        return
    with pytest.raises(ValueError, match=words):
        dealt(root, settings_of())


def test_label_skew_without_a_label_is_refused(tmp_path: Path) -> None:
    root = write(tmp_path, [{**row, "label": ""} for row in rows_of(10)])
    with pytest.raises(ValueError, match="'p000' has no label in column 'label'"):
        dealt(root, settings_of(by="dirichlet"))


@pytest.mark.parametrize(
    "given",
    [{}, {"split_column": "split"}, {"by": "dirichlet", "alpha": 9.0, "held_out": "shared"}],
)
def test_a_site_reads_the_manifest_that_was_written_for_it(
    root: Path, given: dict[str, object]
) -> None:
    for path in partition(root, settings_of(**given), 0, root / "sites").values():
        written = read(path)
        assert [(str(row.image), row.patient, row.split) for row in read_manifest(path)] == [
            (row["image"], row["patient"], row.get("split")) for row in written
        ]


def test_an_empty_column_is_left_out_of_a_hospitals_name(tmp_path: Path) -> None:
    rows = rows_of(12)
    for row in rows:
        row["label"] = "" if row["site"] == "clinic 0" else "sick"
    write(tmp_path, rows)
    config = PartitionConfig(by="column", columns=["site", "label"])
    dealt = partition(tmp_path, config, 0, tmp_path / "out")
    assert sorted(dealt) == ["clinic-0", "clinic-1-sick", "clinic-2-sick"]
