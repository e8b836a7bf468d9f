"""What a model says of a DICOM series lies on that series' own pictures."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pydicom import Dataset, dcmread
from pydicom.uid import DigitalXRayImageStorageForPresentation

from client.cases import classes_drawn
from client.manifest import Row
from client.prediction.dicom import capture_of, segmentation_of
from client.readers import BadFileError, read_image, read_mask
from common.tasks.segmentation import SegmentationConfig
from tests.builders import PICTURES, SLICES, study_from
from tests.dicoms import header, stored_volume, with_pixels, write_enhanced, write_series

STUDY = study_from(
    *SLICES, "task.classes=[head,tail]", "task.label_values=[1,2]", "task.out_channels=3"
)


def series(folder: Path) -> Path:
    write_series(folder, stored_volume(5))
    return folder


def turned(folder: Path) -> Path:
    def sagittal(index: int, one: Dataset) -> None:
        one.ImageOrientationPatient = [0.0, 1.0, 0.0, 0.0, 0.0, -1.0]
        one.ImagePositionPatient = [7.0 - 5.0 * index, -20.0, 30.0]

    write_series(folder, stored_volume(5), sagittal)
    return folder


def enhanced(folder: Path) -> Path:
    folder.mkdir()
    return write_enhanced(folder / "mr.dcm", stored_volume(5), [1.0] * 5)


@pytest.mark.parametrize("made", [series, turned, enhanced])
def test_a_segmentation_reads_back_on_the_grid_of_its_series(
    tmp_path: Path, made: Callable[[Path], Path]
) -> None:
    source = made(tmp_path / "scan")
    image = read_image(source, 1)
    classes = np.random.default_rng(0).integers(0, 3, image.array_CS.shape[1:]).astype(np.uint8)
    found = segmentation_of(source, classes, STUDY)
    found.save_as(tmp_path / "mask.dcm")
    mask = read_mask(tmp_path / "mask.dcm", image)
    np.testing.assert_array_equal(mask.array_CS[0], classes)
    referred = {
        item.ReferencedSOPInstanceUID
        for series_item in found.ReferencedSeriesSequence
        for item in series_item.ReferencedInstanceSequence
    }
    files = [source] if source.is_file() else sorted(source.iterdir())
    assert referred == {dcmread(file).SOPInstanceUID for file in files}
    assert [segment.SegmentLabel for segment in found.SegmentSequence] == ["head", "tail"]


@pytest.mark.parametrize("values", ["[2,1]", "[7,300]"])
def test_a_segmentation_that_is_given_back_has_the_same_classes(
    tmp_path: Path, values: str
) -> None:
    study = study_from(
        *SLICES, "task.classes=[head,tail]", f"task.label_values={values}", "task.out_channels=3"
    )
    assert isinstance(study.task, SegmentationConfig)
    source = series(tmp_path / "scan")
    image = read_image(source, 1)
    classes = np.random.default_rng(0).integers(0, 3, image.array_CS.shape[1:]).astype(np.uint8)
    segmentation_of(source, classes, study).save_as(tmp_path / "mask.dcm")
    row = Row(image=source, mask=tmp_path / "mask.dcm", patient="p")
    np.testing.assert_array_equal(classes_drawn(row, source, image, study.task)[0], classes)


def test_segments_of_other_names_are_known_by_their_numbers(tmp_path: Path) -> None:
    source = series(tmp_path / "scan")
    image = read_image(source, 1)
    classes = np.random.default_rng(0).integers(0, 3, image.array_CS.shape[1:]).astype(np.uint8)
    segmentation_of(source, classes, STUDY).save_as(tmp_path / "mask.dcm")
    row = Row(image=source, mask=tmp_path / "mask.dcm", patient="p")
    other = SegmentationConfig(
        name="segmentation", classes=["tail", "fluid"], label_values=[2, 1], out_channels=3
    )
    swapped = np.array([0, 2, 1])[classes]
    np.testing.assert_array_equal(classes_drawn(row, source, image, other)[0], swapped)


def test_segments_of_long_names_that_begin_alike_have_codes_of_their_own(tmp_path: Path) -> None:
    names = ["enhancing_tumour_core", "enhancing_tumour_rim"]
    study = study_from(
        *SLICES,
        f"task.classes=[{','.join(names)}]",
        "task.label_values=[1,2]",
        "task.out_channels=3",
    )
    source = series(tmp_path / "scan")
    empty = np.zeros(read_image(source, 1).array_CS.shape[1:], np.uint8)
    segments = segmentation_of(source, empty, study).SegmentSequence
    types = [segment.SegmentedPropertyTypeCodeSequence[0] for segment in segments]
    assert [of.CodeMeaning for of in types] == names
    assert len({of.CodeValue for of in types}) == 2


def test_a_mask_in_which_nothing_was_found_is_a_segmentation_too(tmp_path: Path) -> None:
    source = series(tmp_path / "scan")
    image = read_image(source, 1)
    empty = np.zeros(image.array_CS.shape[1:], np.uint8)
    segmentation_of(source, empty, STUDY).save_as(tmp_path / "mask.dcm")
    assert not read_mask(tmp_path / "mask.dcm", image).array_CS.any()


def radiograph(folder: Path) -> Path:
    folder.mkdir()
    found = with_pixels(
        header(DigitalXRayImageStorageForPresentation, "DX"),
        stored_volume(1)[0],
        BodyPartExamined="CHEST",
    )
    found.PatientOrientation = ["L", "F"]
    found.save_as(folder / "chest.dcm", enforce_file_format=True)
    return folder / "chest.dcm"


def test_a_capture_is_of_the_patient_and_the_study_and_says_what_the_model_says(
    tmp_path: Path,
) -> None:
    source = radiograph(tmp_path / "scan")
    shown = np.random.default_rng(0).integers(0, 255, (20, 30, 3), dtype=np.uint8)
    capture_of(source, shown, study_from(*PICTURES), "pneumonia").save_as(tmp_path / "heat.dcm")
    found, of = dcmread(tmp_path / "heat.dcm"), dcmread(source)
    np.testing.assert_array_equal(found.pixel_array, shown)
    for name in ("PatientID", "StudyInstanceUID"):
        assert found[name].value == of[name].value
    assert found.SeriesInstanceUID != of.SeriesInstanceUID
    assert found.ImageComments == "pneumonia"


def test_a_series_that_nothing_can_refer_to_is_told(tmp_path: Path) -> None:
    def mosaic(_: int, one: Dataset) -> None:
        one.ImageType = ["ORIGINAL", "PRIMARY", "MOSAIC"]

    write_series(tmp_path / "scan", stored_volume(2), mosaic)
    with pytest.raises(BadFileError, match="Siemens mosaic"):
        segmentation_of(tmp_path / "scan", np.zeros((6, 5, 2), np.uint8), STUDY)
