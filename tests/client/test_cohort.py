import hashlib
import random
import re
import shutil
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from client.cohort import BadCohortError, Cohort, draw_choosing, draw_held_out, load_cohort
from client.manifest import Row, read_folder
from common.data_config import DataConfig
from common.tasks.classification import ClassificationConfig
from common.tasks.config import UnlabelledConfig
from common.tasks.segmentation import SegmentationConfig
from common.tasks.unlabelled import UNLABELLED

SICK = ClassificationConfig(name="classification", classes=["well", "sick"], out_channels=2)
DATA = DataConfig(size=[4, 4])
NAMES = st.lists(st.text("abc123", min_size=1), min_size=1, max_size=12)


def segmentation(*values: int) -> SegmentationConfig:
    return SegmentationConfig(
        name="segmentation",
        classes=[f"label_{value}" for value in values],
        label_values=list(values),
        out_channels=1 + len(values),
    )


def pictures(folder: Path, patients: int = 6, each: int = 2) -> list[Row]:
    """Rows of patients with several pictures each; the patient shows in the pixels."""
    folder.mkdir(exist_ok=True)
    rows = []
    for patient in range(patients):
        for number in range(each):
            path = folder / f"{number}-{patient}.png"
            pixels = np.full((4, 4), 10 * patient, np.uint8)
            pixels[0, number] = 255
            Image.fromarray(pixels).save(path)
            label = SICK.classes[patient % 2]
            rows.append(Row(image=path, label=label, patient=f"p{patient}"))
    return rows


def sides(cohort: Cohort) -> tuple[set[str], set[str]]:
    return set(cohort.train.patients), set(cohort.held_out.patients)


def same(one: Cohort, two: Cohort) -> bool:
    return all(
        torch.equal(a.images, b.images)
        and torch.equal(a.targets, b.targets)
        and (a.patients, a.volumes, a.spacing_mm) == (b.patients, b.volumes, b.spacing_mm)
        for a, b in ((one.train, two.train), (one.held_out, two.held_out))
    )


@given(names=NAMES, share=st.floats(0, 1), seed=st.integers(0, 2**62))
def test_the_draw_holds_out_the_share_and_never_a_whole_side(
    names: list[str], share: float, seed: int
) -> None:
    held_out = draw_held_out(names, share, seed)
    patients = set(names)
    assert held_out <= patients
    assert held_out == draw_held_out(reversed(names), share, seed)
    assert abs(len(held_out) - share * len(patients)) <= (1 if 0 < share < 1 else 0)
    if 0 < share < 1 and len(patients) >= 2:
        assert 0 < len(held_out) < len(patients)


@given(names=st.sets(st.text("abc123", min_size=1), min_size=3), seed=st.integers(0, 2**62))
def test_a_patient_who_leaves_moves_at_most_one_other_across(names: set[str], seed: int) -> None:
    leaver = min(names)
    before = draw_held_out(names, 0.3, seed) - {leaver}
    after = draw_held_out(names - {leaver}, 0.3, seed)
    assert len(before ^ after) <= 1


def test_every_patient_is_held_out_equally_often() -> None:
    names = [f"p{number}" for number in range(5)]
    counts = dict.fromkeys(names, 0)
    for seed in range(1000):
        for name in draw_held_out(names, 0.4, seed):
            counts[name] += 1
    assert all(abs(count - 400) < 60 for count in counts.values())


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(seed=st.integers(0, 2**62), share=st.floats(0, 1))
def test_no_patient_is_on_two_sides_and_none_is_lost(
    tmp_path: Path, seed: int, share: float
) -> None:
    rows = pictures(tmp_path)
    data = DataConfig(size=[4, 4], held_out=share)
    cohort = load_cohort(rows, data, SICK, seed)
    train, held_out = sides(cohort)
    assert not train & held_out
    assert train | held_out == {row.patient for row in rows}
    assert len(cohort.train.patients) + len(cohort.held_out.patients) == len(rows)


@settings(max_examples=10, deadline=None, suppress_health_check=list(HealthCheck))
@given(order=st.randoms(use_true_random=False))
def test_nothing_depends_on_the_order_of_rows(tmp_path: Path, order: random.Random) -> None:
    rows = pictures(tmp_path)
    shuffled = list(rows)
    order.shuffle(shuffled)
    one, two = (load_cohort(r, DATA, SICK, 3) for r in (rows, shuffled))
    assert same(one, two)
    assert one.fingerprint == two.fingerprint


@pytest.mark.parametrize(("share", "trained"), [(0.0, 6), (1.0, 0)])
def test_a_side_may_be_empty(tmp_path: Path, share: float, trained: int) -> None:
    data = DataConfig(size=[4, 4], held_out=share)
    cohort = load_cohort(pictures(tmp_path), data, SICK, 0)
    assert (cohort.train.num_patients, cohort.held_out.num_patients) == (trained, 6 - trained)
    empty = cohort.held_out if trained else cohort.train
    assert empty.images.shape == (0, 1, 4, 4)
    assert (empty.targets.shape, empty.targets.dtype) == ((0,), torch.int64)
    assert empty.patient_indices() == {}


def test_a_stated_split_holds_whatever_the_seed_and_share(tmp_path: Path) -> None:
    rows = [
        Row(image=r.image, label=r.label, patient=r.patient, split="test" if i < 4 else "train")
        for i, r in enumerate(pictures(tmp_path))
    ]
    for seed in range(5):
        cohort = load_cohort(rows, DATA, SICK, seed)
        assert sides(cohort) == ({"p2", "p3", "p4", "p5"}, {"p0", "p1"})
    with pytest.raises(ValueError, match="'p0' is in both"):
        load_cohort(
            [*rows[1:], Row(image=rows[0].image, patient="p0", split="train")], DATA, SICK, 0
        )


def test_samples_know_their_patient_their_file_and_their_target(tmp_path: Path) -> None:
    samples = load_cohort(pictures(tmp_path), DataConfig(size=[4, 4], held_out=0.0), SICK, 0).train
    assert samples.patients == tuple(f"p{i // 2}" for i in range(12))
    assert samples.volumes == tuple(range(12))
    assert samples.targets.tolist() == [i // 2 % 2 for i in range(12)]
    assert samples.patient_indices() == {f"p{i}": [2 * i, 2 * i + 1] for i in range(6)}
    assert samples.spacing_mm == ((1.0, 1.0),) * 12


def test_slices_of_a_file_stand_together_in_order(tmp_path: Path) -> None:
    rows = []
    for name, slices in (("a", 3), ("b", 5)):
        values = np.random.default_rng(slices).random((4, 4, slices))
        nib.save(nib.Nifti1Image(values, np.diag([1, 2, 7, 1])), tmp_path / f"{name}.nii")
        nib.save(
            nib.Nifti1Image((values > 0.5).astype(np.uint8), np.diag([1, 2, 7, 1])),
            tmp_path / f"{name}_mask.nii",
        )
        rows.append(
            Row(image=tmp_path / f"{name}.nii", mask=tmp_path / f"{name}_mask.nii", patient=name)
        )
    flat = load_cohort(rows, DataConfig(size=[4, 4], held_out=0.0), segmentation(1), 0)
    assert flat.train.volumes == (0,) * 3 + (1,) * 5
    assert flat.train.patients == ("a",) * 3 + ("b",) * 5
    assert set(flat.train.spacing_mm) == {(1.0, 2.0, 7.0)}
    assert flat.held_out.targets.shape == (0, 1, 4, 4)
    solid = DataConfig(size=[4, 4, 5], spatial_dims=3, held_out=0.0)
    whole = load_cohort(rows, solid, segmentation(1), 0).train
    torch.testing.assert_close(flat.train.images[3:].movedim(0, -1), whole.images[1])
    assert torch.equal(flat.train.targets[3:].movedim(0, -1), whole.targets[1])


def spoil(rows: list[Row], count: int) -> None:
    for row in rows[:count]:
        row.image.write_bytes(b"spoilt")


def test_stop_lists_every_bad_file_ten_in_words(tmp_path: Path) -> None:
    rows = pictures(tmp_path, patients=8)
    spoil(rows, 3)
    with pytest.raises(BadCohortError, match="3 bad files") as caught:
        load_cohort(rows, DATA, SICK, 0)
    assert [error.path for error in caught.value.bad_files] == [row.image for row in rows[:3]]
    assert all(str(row.image) in str(caught.value) for row in rows[:3])
    spoil(rows, 14)
    with pytest.raises(BadCohortError, match="14 bad files") as caught:
        load_cohort(rows, DATA, SICK, 0)
    assert len(re.findall("not a picture", str(caught.value))) == 10
    assert str(caught.value).endswith("and 4 more")
    assert len(caught.value.bad_files) == 14


def test_skip_goes_on_without_the_bad_files_and_keeps_their_list(tmp_path: Path) -> None:
    rows = pictures(tmp_path)
    spoil(rows, 3)
    skip = DataConfig(size=[4, 4], on_bad_file="skip")
    cohort = load_cohort(rows, skip, SICK, 0)
    assert [error.path for error in cohort.bad_files] == [row.image for row in rows[:3]]
    clean = load_cohort(rows[3:], DATA, SICK, 0)
    assert same(cohort, clean)
    assert cohort.fingerprint == clean.fingerprint


@pytest.mark.parametrize("policy", ["stop", "skip"])
def test_nothing_left_is_an_error(tmp_path: Path, policy: str) -> None:
    rows = pictures(tmp_path)
    spoil(rows, len(rows))
    with pytest.raises(BadCohortError, match="12"):
        load_cohort(rows, DataConfig(size=[4, 4], on_bad_file=policy), SICK, 0)
    with pytest.raises(BadCohortError, match="none of 0 images"):
        load_cohort([], DATA, SICK, 0)


def test_a_row_listed_twice_is_bad_and_counts_once(tmp_path: Path) -> None:
    rows = pictures(tmp_path)
    with pytest.raises(BadCohortError, match="is listed 2 times; keep one"):
        load_cohort([*rows, rows[0]], DATA, SICK, 0)
    skip = DataConfig(size=[4, 4], on_bad_file="skip")
    assert same(load_cohort([*rows, rows[0]], skip, SICK, 0), load_cohort(rows, DATA, SICK, 0))


def test_rows_of_one_image_that_contradict_each_other_both_go(tmp_path: Path) -> None:
    rows = pictures(tmp_path)
    (tmp_path / "x").mkdir()
    roundabout = tmp_path / "x" / ".." / rows[0].image.name
    twin = Row(image=roundabout, label="sick", patient="p5")
    skip = DataConfig(size=[4, 4], on_bad_file="skip")
    cohort = load_cohort([twin, *rows], skip, SICK, 0)
    assert len(cohort.bad_files) == 1
    assert same(cohort, load_cohort(rows[1:], DATA, SICK, 0))


def test_the_fingerprint_is_of_the_contents_not_of_the_place(tmp_path: Path) -> None:
    rows = pictures(tmp_path / "here")
    shutil.copytree(tmp_path / "here", tmp_path / "there")
    moved = [
        Row(image=tmp_path / "there" / r.image.name, label=r.label, patient=r.patient) for r in rows
    ]
    one, two = load_cohort(rows, DATA, SICK, 0), load_cohort(moved, DATA, SICK, 1)
    assert one.fingerprint == two.fingerprint
    digests = sorted(hashlib.sha256(row.image.read_bytes()).digest() for row in rows)
    assert one.fingerprint == hashlib.sha256(b"".join(digests)).hexdigest()
    assert load_cohort(rows[1:], DATA, SICK, 0).fingerprint != one.fingerprint


@pytest.mark.parametrize("seed", [0, 7, 2**40])
def test_both_eyes_of_a_child_are_on_one_side(shared_data: Path, seed: int) -> None:
    rows = [
        Row(image=row.image, mask=row.mask, patient=row.patient[:-1])
        for row in read_folder(shared_data / "retina_vessels" / "CHASE_DB1")[:8]
    ]
    cohort = load_cohort(rows, DataConfig(size=[32, 32], fit="resize"), segmentation(255), seed)
    train, held_out = sides(cohort)
    assert (len(train), len(held_out)) == (3, 1)
    assert not train & held_out
    assert all(len(eyes) == 2 for eyes in cohort.train.patient_indices().values())


@pytest.mark.parametrize(
    ("folder", "task", "data", "shape"),
    [
        (
            "retina_vessels/HRF",
            segmentation(255),
            DataConfig(size=[64, 48], fit="resize", channels=3),
            (4, 3, 64, 48),
        ),
        (
            "hippocampus_msd",
            segmentation(1, 2),
            DataConfig(size=[40, 56, 40], spatial_dims=3),
            (4, 1, 40, 56, 40),
        ),
    ],
)
def test_real_folders_load(
    shared_data: Path,
    folder: str,
    task: SegmentationConfig,
    data: DataConfig,
    shape: tuple[int, ...],
) -> None:
    train = load_cohort(read_folder(shared_data / folder)[:5], data, task, 0).train
    assert train.images.shape == shape
    assert train.images.flatten(1).std(dim=1).min() > 0.5
    assert train.targets.unique().tolist() == list(range(task.out_channels))


def test_real_scanners_come_to_one_spacing(shared_data: Path) -> None:
    images = sorted(shared_data.glob("spinalcord_gm/sub-9[47]*/*_T2starw.nii.gz"))
    rows = [
        Row(
            image=path,
            mask=path.with_name(path.name.replace(".nii", "_gmseg-manual.nii")),
            patient=path.parent.name.removesuffix("Ses1").removesuffix("Ses2"),
        )
        for path in images
    ]
    data = DataConfig(size=[64, 64], spacing_mm=[0.5, 0.5])
    cohort = load_cohort(rows, data, segmentation(1), 0)
    samples = (cohort.train, cohort.held_out)
    assert {s for side in samples for s in side.spacing_mm} == {(0.5, 0.5, 3.0)}
    assert sum(side.num_patients for side in samples) == 2
    assert all(side.targets.any() for side in samples)


def test_an_image_of_two_patients_is_a_bad_file(tmp_path: Path) -> None:
    rows = pictures(tmp_path, patients=4, each=1)
    rows[3].image.write_bytes(rows[0].image.read_bytes())
    with pytest.raises(BadCohortError, match="an image of another patient too"):
        load_cohort(rows, DATA, SICK, seed=0)
    skip = DataConfig(size=[4, 4], on_bad_file="skip")
    cohort = load_cohort(rows, skip, SICK, seed=0)
    assert [error.path for error in cohort.bad_files] == [rows[3].image]
    assert cohort.train.num_patients + cohort.held_out.num_patients == 3


def test_twins_are_looked_for_in_the_sequences_that_are_used_alone(tmp_path: Path) -> None:
    rows = [
        replace(row, image=tmp_path / f"gone-{row.patient}.png", sequences={"t1": row.image})
        for row in pictures(tmp_path, patients=4, each=1)
    ]
    data = DataConfig(size=[4, 4], sequences=["t1"])
    assert load_cohort(rows, data, SICK, seed=0).train.num_patients
    rows[3].sequences["t1"].write_bytes(rows[0].sequences["t1"].read_bytes())
    with pytest.raises(BadCohortError, match="an image of another patient too"):
        load_cohort(rows, data, SICK, seed=0)


@given(st.sets(st.text("abcdef", min_size=1), min_size=1, max_size=30), st.integers(0, 99))
def test_a_patient_who_joins_moves_nobody_to_or_from_those_who_choose(
    names: set[str], seed: int
) -> None:
    before = draw_choosing(names, 0.3, seed)
    after = draw_choosing(names | {"zz"}, 0.3, seed)
    assert before != names
    # Nobody of the older ones, or the same: those who would all choose let one of them train.
    assert before in (after - {"zz"}, frozenset())


def test_who_chooses_is_about_the_share() -> None:
    names = {f"p{number}" for number in range(2000)}
    assert 340 < len(draw_choosing(names, 0.2, 1)) < 460
    assert draw_choosing(names, 0.0, 1) == frozenset()
    assert draw_choosing({"only"}, 0.99, 0) == frozenset()


def test_only_a_share_of_the_training_patients_trains_and_the_tested_ones_stay(
    tmp_path: Path,
) -> None:
    rows = pictures(tmp_path)
    whole, part = (
        load_cohort(rows, DataConfig(size=[4, 4], held_out=0.3, train_share=share), SICK, 1)
        for share in (None, 0.5)
    )
    assert part.held_out.patients == whole.held_out.patients
    assert set(part.train.patients) < set(whole.train.patients)
    assert part.train.num_patients == round(whole.train.num_patients / 2)


LEARNS = replace(SICK, unlabelled=UnlabelledConfig())


def silent(rows: list[Row], *patients: str) -> list[Row]:
    return [replace(row, label=None) if row.patient in patients else row for row in rows]


@pytest.mark.parametrize("seed", range(4))
def test_who_has_no_label_trains_and_the_others_are_split_as_without_them(
    tmp_path: Path, seed: int
) -> None:
    rows = pictures(tmp_path)
    cohort = load_cohort(silent(rows, "p1", "p4"), DATA, LEARNS, seed)
    others = load_cohort([r for r in rows if r.patient not in {"p1", "p4"}], DATA, SICK, seed)
    assert cohort.held_out.patients == others.held_out.patients
    assert set(cohort.train.patients) == set(others.train.patients) | {"p1", "p4"}
    without = {p for p, t in zip(cohort.train.patients, cohort.train.targets, strict=True) if t < 0}
    assert without == {"p1", "p4"}
    assert set(cohort.train.targets.tolist()) <= {UNLABELLED, 0, 1}


def test_a_site_without_any_label_trains_and_is_not_tested(tmp_path: Path) -> None:
    rows = [replace(row, label=None) for row in pictures(tmp_path)]
    cohort = load_cohort(rows, DATA, LEARNS, 0)
    assert (cohort.train.num_patients, cohort.held_out.num_patients) == (6, 0)
    assert bool((cohort.train.targets == UNLABELLED).all())
    with pytest.raises(BadCohortError, match="has no label"):
        load_cohort(rows, DATA, SICK, 0)


def test_a_patient_who_is_to_be_tested_and_has_no_label_is_on_no_side(tmp_path: Path) -> None:
    stated = {"p0": "test", "p1": "test"}
    rows = [replace(r, split=stated.get(r.patient, "train")) for r in pictures(tmp_path)]
    cohort = load_cohort(silent(rows, "p1"), DATA, LEARNS, 0)
    assert set(cohort.held_out.patients) == {"p0"}
    assert set(cohort.train.patients) == {"p2", "p3", "p4", "p5"}


def test_of_a_tested_patient_an_image_without_a_label_is_left_out(tmp_path: Path) -> None:
    rows = pictures(tmp_path)
    held_out = load_cohort(rows, DATA, LEARNS, 0).held_out
    first = next(row for row in rows if row.patient == held_out.patients[0])
    part = [replace(row, label=None) if row is first else row for row in rows]
    cohort = load_cohort(part, DATA, LEARNS, 0)
    assert len(cohort.held_out.patients) == len(held_out.patients) - 1
    assert first.patient not in cohort.train.patients


def test_whom_the_train_share_leaves_out_trains_as_nobody_had_labelled_them(tmp_path: Path) -> None:
    rows, data = pictures(tmp_path), replace(DATA, train_share=0.5)
    few, rest = (load_cohort(rows, data, task, 1).train for task in (SICK, LEARNS))
    assert set(few.patients) < set(rest.patients)
    known = {p for p, t in zip(rest.patients, rest.targets, strict=True) if t >= 0}
    assert known == set(few.patients)


@pytest.mark.parametrize("dims", [2, 3])
def test_a_volume_without_a_mask_is_learned_from_where_the_study_says_so(
    tmp_path: Path, dims: int
) -> None:
    path = tmp_path / "a.nii"
    nib.save(nib.Nifti1Image(np.arange(64, dtype=np.float32).reshape(4, 4, 4), np.eye(4)), path)
    task = replace(segmentation(1), unlabelled=UnlabelledConfig())
    data = DataConfig(size=[4] * dims, spatial_dims=dims)
    train = load_cohort([Row(image=path, patient="p")], data, task, 0).train
    assert train.targets.shape == train.images.shape
    assert train.targets.dtype == torch.int64
    assert bool((train.targets == UNLABELLED).all())
