from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from PIL import Image

from client.cases import read_case
from client.manifest import Row
from client.readers import BadFileError
from common.data_config import DataConfig
from common.tasks.classification import ClassificationConfig
from common.tasks.config import TaskConfig
from common.tasks.multilabel import MultilabelConfig
from common.tasks.restoration import RestorationConfig
from common.tasks.segmentation import SegmentationConfig
from common.tasks.survival import SurvivalConfig
from tests.dicoms import square_mm, write_contours, write_series

VESSELS = SegmentationConfig(
    name="segmentation", classes=["vessel"], label_values=[255], out_channels=2
)
PARTS = SegmentationConfig(
    name="segmentation", classes=["front", "back"], label_values=[4, 2], out_channels=3
)
SICK = ClassificationConfig(name="classification", classes=["well", "sick"], out_channels=2)
CHEST = MultilabelConfig(name="multilabel", classes=["mass", "nodule", "edema"], out_channels=3)
FLAT, SOLID = DataConfig(size=[8, 6]), DataConfig(size=[8, 6, 5], spatial_dims=3)


def volume(path: Path, labels: bool = False, shift_mm: float = 0.0, spacing: float = 2.0) -> Path:
    rng = np.random.default_rng(len(path.name))
    array = rng.choice([0, 4, 2], (8, 6, 5)).astype(np.int16) if labels else rng.random((8, 6, 5))
    affine = np.diag([spacing, spacing, 4.0, 1.0])
    affine[0, 3] = shift_mm
    nib.save(nib.Nifti1Image(array, affine), path)
    return path


def picture(path: Path, size: tuple[int, int] = (8, 6), values: tuple[int, ...] = (0, 255)) -> Path:
    pixels = np.random.default_rng(0).choice(np.array(values, np.uint8), size[::-1])
    Image.fromarray(pixels).save(path)
    return path


def test_a_volume_is_one_sample_in_3d(tmp_path: Path) -> None:
    row = Row(image=volume(tmp_path / "a.nii"), mask=volume(tmp_path / "m.nii", True), patient="p")
    case = read_case(row, SOLID, PARTS)
    assert case.images.shape == (1, 1, 8, 6, 5)
    assert case.targets.shape == (1, 1, 8, 6, 5)
    assert case.spacing_mm == (2.0, 2.0, 4.0)
    stored = np.asarray(nib.load(tmp_path / "m.nii").dataobj)
    for index, value in enumerate([0, 4, 2]):
        np.testing.assert_array_equal(case.targets[0, 0].numpy() == index, stored == value)


def test_the_slices_of_a_volume_stack_back_to_the_volume(tmp_path: Path) -> None:
    row = Row(image=volume(tmp_path / "a.nii"), mask=volume(tmp_path / "m.nii", True), patient="p")
    slices, whole = read_case(row, FLAT, PARTS), read_case(row, SOLID, PARTS)
    assert slices.images.shape == (5, 1, 8, 6)
    torch.testing.assert_close(slices.images.movedim(0, -1)[None], whole.images)
    assert torch.equal(slices.targets.movedim(0, -1)[None], whole.targets)
    assert slices.spacing_mm == whole.spacing_mm


def test_every_slice_of_a_labelled_volume_has_its_label(tmp_path: Path) -> None:
    row = Row(image=volume(tmp_path / "a.nii"), label="sick", patient="p")
    assert read_case(row, FLAT, SICK).targets.tolist() == [1] * 5
    assert read_case(row, SOLID, SICK).targets.tolist() == [1]


def test_one_bit_masks_have_the_value_255(tmp_path: Path) -> None:
    image, mask = picture(tmp_path / "a.png", values=(1, 9)), picture(tmp_path / "m.png")
    with Image.open(mask) as file:
        file.convert("1").save(tmp_path / "bit.png")
    grey, bit = (
        read_case(Row(image=image, mask=path, patient="p"), FLAT, VESSELS).targets
        for path in (mask, tmp_path / "bit.png")
    )
    assert torch.equal(grey, bit)
    assert grey.unique().tolist() == [0, 1]


def bad_rows(folder: Path) -> dict[str, tuple[Row, DataConfig, TaskConfig, str, str]]:
    """Kind -> row, data, task, the file that is blamed, and a word of the reason."""
    image, flat = volume(folder / "a.nii"), picture(folder / "a.png")

    def masked(image: Path, mask: Path) -> Row:
        return Row(image=image, mask=mask, patient="p")

    elsewhere = volume(folder / "m1.nii", True, shift_mm=1.5)
    coarser = volume(folder / "m2.nii", True, spacing=2.3)
    small = picture(folder / "m3.png", (6, 8))
    other = picture(folder / "m4.png", values=(0, 1, 2, 3, 4, 5, 6))
    alone = Row(image=image, patient="p")
    return {
        "no mask": (alone, FLAT, PARTS, "a.nii", "has no mask"),
        "mask gone": (masked(image, folder / "m0.nii"), FLAT, PARTS, "m0.nii", "does not exist"),
        "moved": (masked(image, elsewhere), FLAT, PARTS, "m1.nii", "up to 1.5 mm away"),
        "coarser": (masked(image, coarser), FLAT, PARTS, "m2.nii", "mm away"),
        "other shape": (masked(flat, small), FLAT, VESSELS, "m3.png", "has the shape (6, 8)"),
        "mislabelled": (masked(flat, other), FLAT, VESSELS, "m4.png", "6 label values"),
        "2-D in 3-D": (masked(flat, flat), SOLID, VESSELS, "a.png", "is a 2-D picture"),
        "no label": (alone, FLAT, SICK, "a.nii", "has no label"),
        "other label": (
            Row(image=image, label="ill", patient="p"), FLAT, SICK, "a.nii", "the label 'ill'",
        ),
    }  # fmt: skip


BAD = [
    *("no mask", "mask gone", "moved", "coarser", "other shape", "mislabelled", "2-D in 3-D"),
    *("no label", "other label"),
]


@pytest.mark.parametrize("kind", BAD)
def test_a_row_that_does_not_fit_is_named_with_reason_and_remedy(tmp_path: Path, kind: str) -> None:
    row, data, task, name, word = bad_rows(tmp_path)[kind]
    with pytest.raises(BadFileError) as caught:
        read_case(row, data, task)
    assert caught.value.path == tmp_path / name
    assert word in caught.value.reason
    assert caught.value.remedy in str(caught.value)


def test_headers_may_be_rounded(tmp_path: Path) -> None:
    image, mask = volume(tmp_path / "a.nii"), volume(tmp_path / "m.nii", True, shift_mm=0.3)
    assert len(read_case(Row(image=image, mask=mask, patient="p"), FLAT, PARTS).images) == 5


def test_a_mask_without_foreground_stays(tmp_path: Path) -> None:
    image, mask = picture(tmp_path / "a.png"), picture(tmp_path / "m.png", values=(0,))
    case = read_case(Row(image=image, mask=mask, patient="p"), FLAT, VESSELS)
    assert not case.targets.any()


def test_a_task_without_targets_in_files_is_refused(tmp_path: Path) -> None:
    task = TaskConfig(name="registration", classes=["a"], out_channels=1, headline="tre")
    with pytest.raises(ValueError, match=r"'registration' has no way to read"):
        read_case(Row(image=tmp_path / "a.png", patient="p"), FLAT, task)


@pytest.mark.parametrize(
    ("label", "target"),
    [
        ("nodule", [0, 1, 0]),
        ("edema|mass", [1, 0, 1]),
        ("mass | nodule", [1, 1, 0]),
        ("none", [0] * 3),
    ],
)
def test_an_image_has_a_one_for_each_of_its_labels(
    label: str, target: list[int], tmp_path: Path
) -> None:
    row = Row(image=picture(tmp_path / "a.png"), label=label, patient="p")
    assert read_case(row, FLAT, CHEST).targets.tolist() == [target]
    volume_row = Row(image=volume(tmp_path / "a.nii"), label=label, patient="p")
    assert read_case(volume_row, FLAT, CHEST).targets.tolist() == [target] * 5


@pytest.mark.parametrize("label", ["Mass", "mass|", "mass;nodule"])
def test_a_label_that_is_none_of_several_is_named(label: str, tmp_path: Path) -> None:
    row = Row(image=picture(tmp_path / "a.png"), label=label, patient="p")
    with pytest.raises(BadFileError, match="mass, nodule, edema, none"):
        read_case(row, FLAT, CHEST)


def test_an_image_with_and_without_labels_is_refused(tmp_path: Path) -> None:
    row = Row(image=picture(tmp_path / "a.png"), label="none|mass", patient="p")
    with pytest.raises(BadFileError, match="'none' beside others"):
        read_case(row, FLAT, CHEST)


def test_where_there_may_be_several_labels_an_empty_cell_is_refused(
    tmp_path: Path,
) -> None:
    row = Row(image=picture(tmp_path / "a.png"), patient="p")
    with pytest.raises(BadFileError, match="has no label"):
        read_case(row, FLAT, CHEST)


def test_a_dicom_series_with_its_contours_is_a_case(tmp_path: Path) -> None:
    write_series(tmp_path / "series")
    outlines = {4: [square_mm((0, 0), (3, 3), 1)], 2: [square_mm((3, 0), (6, 5), 2)]}
    mask = write_contours(tmp_path / "contours.dcm", outlines)
    case = read_case(
        Row(image=tmp_path / "series", mask=mask, patient="p"), DataConfig(size=[6, 5]), PARTS
    )
    assert case.images.shape == (4, 1, 6, 5)
    counts = [torch.bincount(target.ravel(), minlength=3).tolist() for target in case.targets]
    assert counts == [[30, 0, 0], [21, 9, 0], [15, 0, 15], [30, 0, 0]]


def test_a_degraded_image_hangs_on_patient_and_image_alone_and_needs_no_mask(
    tmp_path: Path,
) -> None:
    task = RestorationConfig(name="restoration")
    grey = DataConfig(size=[8, 7], normalise="minmax")
    row = Row(image=volume(tmp_path / "a.nii"), patient="p")
    first, again = read_case(row, grey, task), read_case(row, grey, task)
    assert first.images.shape == (5, 1, 8, 7)
    assert first.targets.shape == (5, 2, 8, 7)
    assert torch.equal(first.images, again.images)
    assert torch.equal(first.targets[:, 1:], first.images.clamp(0, 1))
    other = read_case(replace(row, patient="q"), grey, task)
    assert torch.equal(other.targets[:, :1], first.targets[:, :1])
    assert not torch.equal(other.images, first.images)
    # Another hospital's patient of this name, with a file of this name, has draws of its own.
    (tmp_path / "b").mkdir()
    theirs = volume(tmp_path / "b" / "a.nii", shift_mm=1.0)
    elsewhere = read_case(replace(row, image=theirs), grey, task)
    assert torch.equal(elsewhere.targets[:, :1], first.targets[:, :1])
    assert not torch.equal(elsewhere.images, first.images)


def test_times_are_read_from_the_columns_and_a_cell_that_is_no_number_is_named(
    tmp_path: Path,
) -> None:
    task = SurvivalConfig(name="survival", truth_column="risk")
    cells = {"time": "2.5", "event": "1", "risk": "-0.5"}
    row = Row(image=volume(tmp_path / "a.nii"), patient="p", covariates=cells)
    case = read_case(row, FLAT, task)
    assert torch.equal(case.targets, torch.tensor([[2.5, 1.0, -0.5]]).expand(5, 3))
    for cell, told in (("", "''"), ("late", "'late'"), ("inf", "'inf'")):
        with pytest.raises(BadFileError, match=f"{told} in the column 'time'"):
            read_case(replace(row, covariates={**cells, "time": cell}), FLAT, task)
    with pytest.raises(BadFileError, match="event=2"):
        read_case(replace(row, covariates={**cells, "event": "2"}), FLAT, task)
    with pytest.raises(BadFileError, match=r"risk=40.*from -8 to 8"):
        read_case(replace(row, covariates={**cells, "risk": "40"}), FLAT, task)


THREE = DataConfig(size=[8, 6], channels=3, sequences=["t1", "t2", "flair"])


def test_sequences_are_channels_in_the_order_of_the_study_and_a_missing_one_is_zero(
    tmp_path: Path,
) -> None:
    files = {"flair": volume(tmp_path / "a.nii"), "t1": volume(tmp_path / "b.nii.gz")}
    row = Row(image=files["flair"], mask=volume(tmp_path / "m.nii", True), patient="p")
    case = read_case(replace(row, sequences=files), THREE, PARTS)
    alone = [read_case(replace(row, image=files[name]), FLAT, PARTS) for name in ("t1", "flair")]
    assert case.images.shape == (5, 3, 8, 6)
    assert torch.equal(case.images[:, 0], alone[0].images[:, 0])
    assert not case.images[:, 1].any()
    assert torch.equal(case.images[:, 2], alone[1].images[:, 0])


def test_a_row_without_any_sequence_and_one_on_another_grid_are_named(tmp_path: Path) -> None:
    row = Row(image=volume(tmp_path / "a.nii"), mask=volume(tmp_path / "m.nii", True), patient="p")
    with pytest.raises(BadFileError, match="has none of the sequences t1, t2, flair"):
        read_case(row, THREE, PARTS)
    apart = {"t1": row.image, "t2": volume(tmp_path / "moved.nii", shift_mm=9.0)}
    with pytest.raises(BadFileError, match=r"moved\.nii.* lies up to 9 mm away"):
        read_case(replace(row, sequences=apart), THREE, PARTS)
