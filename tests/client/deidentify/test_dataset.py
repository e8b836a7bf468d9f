from pathlib import Path

import numpy as np
import pytest
from dicomanonymizer.dicom_anonymization_databases import dicomfields_2026c as table
from hypothesis import given
from hypothesis import strategies as st
from pydicom import Dataset, dcmread
from pydicom.datadict import DicomDictionary, dictionary_keyword, dictionary_VR
from pydicom.tag import Tag

from client.deidentify.dataset import deidentify
from client.deidentify.profile import Action, action_for
from client.deidentify.pseudonyms import Pseudonyms
from client.mapping import Names
from client.preflight.dicom_headers import identifying
from client.readers import read_mask
from tests.dicoms import stored_volume, write_contours, write_segmentation, write_series

KEY = Pseudonyms(b"k" * 32)
NAMES = Names()
TEXTS = ("LO", "SH", "PN", "LT", "ST", "UT", "UC", "UR", "AE")
KEPT = {
    "Manufacturer",
    "ManufacturerModelName",
    "ConvolutionKernel",
    "ImagedNucleus",
    "RescaleType",
    "ModalityLUTType",
    "CodeValue",
    "CodingSchemeDesignator",
    "CodingSchemeVersion",
}
SECRET = "ZEBRA"


def slice_of(folder: Path, **elements: object) -> Path:
    return write_series(folder, **elements)[0]


def cleaned(path: Path, names: Names = NAMES, key: Pseudonyms = KEY) -> bytes:
    found = dcmread(path)
    deidentify(found, key, names)
    found.save_as(path.with_suffix(".out"), enforce_file_format=True)
    return path.with_suffix(".out").read_bytes()


def test_no_text_that_a_person_may_have_written_is_left(tmp_path: Path) -> None:
    """Each text of the standard, each code of the table, also within a sequence that stays."""
    path = slice_of(tmp_path)
    found, item = dcmread(path), Dataset()
    listed = {Tag(*tag) for tag in table.ALL_TAGS if len(tag) == 2}
    texts = [
        Tag(tag)
        for tag, (kind, *_) in DicomDictionary.items()
        if tag >> 16 > 2 and (kind in TEXTS or (kind == "CS" and Tag(tag) in listed))
    ]
    assert len(texts) > 750
    for tag in texts:
        # What a device or a standard writes, and readers need.
        if dictionary_keyword(tag) not in KEPT:
            for part in (found, item):
                part.add_new(tag, dictionary_VR(tag), SECRET)
    found.ViewCodeSequence = [item]
    found.save_as(path)
    assert path.read_bytes().count(SECRET.encode()) > 1500
    assert SECRET.encode() not in cleaned(path)


def test_no_day_is_left(tmp_path: Path) -> None:
    path = slice_of(tmp_path)
    found = dcmread(path)
    for tag, (kind, *_) in DicomDictionary.items():
        if kind in ("DA", "DT") and tag >> 16 > 2:
            found.add_new(Tag(tag), kind, "20250317")
    found.save_as(path)
    assert path.read_bytes().count(b"20250317") > 100
    assert b"20250317" not in cleaned(path)


def test_no_uid_of_a_file_is_left_and_those_of_the_standard_are(tmp_path: Path) -> None:
    path = slice_of(tmp_path)
    found = dcmread(path)
    for tag, (kind, *_) in DicomDictionary.items():
        if kind == "UI" and tag >> 16 > 2 and not dictionary_keyword(tag).endswith("ClassUID"):
            found.add_new(Tag(tag), kind, "1.2.3.4711")
    found.ContextUID = "1.2.840.10008.6.1.1"
    found.save_as(path)
    assert path.read_bytes().count(b"1.2.3.4711") > 80
    content = cleaned(path)
    assert b"1.2.3.4711" not in content
    assert b"1.2.840.10008.6.1.1" in content


def test_attributes_under_another_kind_are_cleaned_by_what_they_are(tmp_path: Path) -> None:
    path = slice_of(tmp_path)
    found = dcmread(path)
    uid = str(found.SOPInstanceUID)
    del found.SOPInstanceUID
    found.add_new(0x00080018, "LO", uid)
    found.add_new(0x00189423, "CS", SECRET)  # AcquisitionProtocolName, a text
    found.add_new(0x00100099, "LO", SECRET)  # of no edition
    found.save_as(path)
    assert SECRET.encode() not in cleaned(path)
    assert dcmread(path.with_suffix(".out")).SOPInstanceUID == KEY.uid(uid)


def test_private_attributes_overlays_and_the_senders_name_are_gone(tmp_path: Path) -> None:
    path = slice_of(tmp_path)
    found = dcmread(path)
    block = found.private_block(0x0029, SECRET, create=True)
    block.add_new(0x01, "LO", SECRET)
    found.add_new(0x60023000, "OW", SECRET.encode() + b"!")
    found.add_new(0x60021500, "LO", SECRET)
    found.add_new(0x50000030, "SH", SECRET)
    found.file_meta.SourceApplicationEntityTitle = SECRET
    found.preamble = SECRET.encode().ljust(128)
    found.save_as(path)
    assert path.read_bytes().count(SECRET.encode()) >= 4
    assert SECRET.encode() not in cleaned(path)


def test_the_image_is_the_same_and_its_place_too(tmp_path: Path) -> None:
    path = slice_of(tmp_path)
    before = dcmread(path)
    cleaned(path)
    after = dcmread(path.with_suffix(".out"))
    np.testing.assert_array_equal(after.pixel_array, before.pixel_array)
    for name in ("ImagePositionPatient", "PixelSpacing", "RescaleSlope", "Manufacturer"):
        assert after[name].value == before[name].value
    assert after.PatientIdentityRemoved == "YES"
    assert "2026c" in after.DeidentificationMethod
    assert list(identifying(after)) == []


def test_names_become_pseudonyms_and_dates_go(tmp_path: Path) -> None:
    path = slice_of(tmp_path)
    cleaned(path)
    after = dcmread(path.with_suffix(".out"))
    assert after.PatientID == after.PatientName == KEY.patient("MRN-4711")
    assert (after.StudyDate, after.PatientBirthDate, after.AccessionNumber) == ("", "", "")
    assert after.file_meta.MediaStorageSOPInstanceUID == after.SOPInstanceUID
    assert after.SOPInstanceUID.startswith("2.25.")


@given(st.text(max_size=20), st.text(max_size=20))
def test_a_pseudonym_is_of_one_person_under_one_key(one: str, other: str) -> None:
    assert (KEY.patient(one) == KEY.patient(other)) == (one.strip() == other.strip())
    assert Pseudonyms(b"l" * 32).patient(one) != KEY.patient(one)
    assert len(KEY.uid(one)) <= 64
    assert KEY.uid(one) == KEY.uid(one)


def test_only_descriptions_that_the_site_lists_stay(tmp_path: Path) -> None:
    names = Names(sequences={"T1*": "t1"}, labels={"liver": 1})
    described = slice_of(tmp_path / "a", SeriesDescription="t1_mprage of Mrs Doeringer")
    assert b"Doeringer" not in cleaned(described, names)
    assert dcmread(described.with_suffix(".out")).SeriesDescription == "t1"
    other = slice_of(tmp_path / "b", SeriesDescription="localizer")
    cleaned(other, names)
    assert "SeriesDescription" not in dcmread(other.with_suffix(".out"))
    contours = write_contours(tmp_path / "rt.dcm", {1: [], 2: []})
    found = dcmread(contours)
    found.StructureSetROISequence[0].ROIName = "Liver"
    found.StructureSetROISequence[1].ROIName = "Doeringer"
    found.save_as(contours)
    cleaned(contours, names)
    rois = dcmread(contours.with_suffix(".out")).StructureSetROISequence
    assert [roi.ROIName for roi in rois] == ["Liver", ""]


def test_labels_of_segments_that_the_site_lists_stay(tmp_path: Path) -> None:
    masks = {1: np.ones(stored_volume().shape, np.uint8)}
    series = write_series(tmp_path / "s")
    for label, left in (("Liver", "Liver"), ("GTV of ZEBRA", "REMOVED")):
        path = write_segmentation(tmp_path / "seg.dcm", series, masks)
        found = dcmread(path)
        found.SegmentSequence[0].SegmentLabel = label
        found.SegmentSequence[0].SegmentDescription = found.ContentDescription = SECRET
        found.save_as(path)
        assert SECRET.encode() not in cleaned(path, Names(labels={"liver": 1}))
        after = dcmread(path.with_suffix(".out"))
        assert after.SegmentSequence[0].SegmentLabel == left
        assert read_mask(path.with_suffix(".out")).array_CS.all()


@pytest.mark.parametrize(
    ("name", "action"),
    [
        ("PatientID", Action.REPLACE),
        ("StudyDate", Action.EMPTY),
        ("SOPInstanceUID", Action.RENAME),
        ("PatientAge", Action.REMOVE),
        ("PixelSpacing", None),
        ("SOPClassUID", None),
        ("EvaluatorName", Action.REMOVE),
        ("StudyUpdateDateTime", Action.REMOVE),
        ("CodeMeaning", Action.REPLACE),
        ("RescaleType", None),
    ],
)
def test_actions_are_those_of_the_standard(name: str, action: Action | None) -> None:
    found = Dataset()
    setattr(found, name, None)
    assert action_for(found[name]) is action
