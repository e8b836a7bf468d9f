"""Tiny DICOM files: slices of a series, multi-frame volumes, segmentations, contours."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import highdicom as hd
import numpy as np
from pydicom import Dataset, FileMetaDataset, dcmread
from pydicom.encaps import encapsulate
from pydicom.sr.codedict import codes
from pydicom.uid import (
    CTImageStorage,
    EnhancedMRImageStorage,
    ExplicitVRLittleEndian,
    RTStructureSetStorage,
    generate_uid,
)

SPACING_MM = (2.0, 3.0, 5.0)
"""Of columns, rows and slices."""
ORIGIN_MM = (-30.0, -40.0, 50.0)
AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)


def stored_volume(slices: int = 4) -> np.ndarray:
    """[slices, rows 5, columns 6] of uint16, all different."""
    return np.arange(slices * 5 * 6, dtype=np.uint16).reshape(slices, 5, 6)


def header(kind: str, modality: str, **elements: Any) -> Dataset:
    """A data set with what every file has."""
    found = Dataset()
    found.file_meta = FileMetaDataset()
    found.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    found.SOPClassUID, found.SOPInstanceUID, found.Modality = kind, generate_uid(), modality
    found.file_meta.MediaStorageSOPClassUID = kind
    found.file_meta.MediaStorageSOPInstanceUID = found.SOPInstanceUID
    found.StudyInstanceUID, found.SeriesInstanceUID = generate_uid(), generate_uid()
    found.FrameOfReferenceUID = generate_uid()
    found.PatientID, found.PatientName = "MRN-4711", "Doeringer^Jane"
    found.PatientBirthDate, found.PatientSex, found.StudyID = "19600102", "F", "1"
    found.StudyDate, found.StudyTime, found.AccessionNumber = "20260102", "120000", "A1"
    found.ReferringPhysicianName, found.Manufacturer = "House^Gregory", "ACME"
    found.SeriesNumber, found.InstanceNumber = 1, 1
    for name, value in elements.items():
        setattr(found, name, value)
    return found


def with_pixels(found: Dataset, pixels: np.ndarray, **elements: Any) -> Dataset:
    """Give a data set grey pixels of 8 or 16 bits."""
    bits = pixels.dtype.itemsize * 8
    found.Rows, found.Columns = pixels.shape[-2:]
    found.SamplesPerPixel, found.PhotometricInterpretation = 1, "MONOCHROME2"
    found.BitsAllocated = found.BitsStored = bits
    found.HighBit = bits - 1
    found.PixelRepresentation = int(pixels.dtype.kind == "i")
    found.PixelData = pixels.tobytes()
    for name, value in elements.items():
        setattr(found, name, value)
    return found


def write_series(
    folder: Path,
    pixels: np.ndarray | None = None,
    change: Callable[[int, Dataset], None] = lambda *_: None,
    **elements: Any,
) -> list[Path]:
    """Write an axial CT, a file a slice, named in an order that is not theirs."""
    folder.mkdir(parents=True, exist_ok=True)
    pixels = stored_volume() if pixels is None else pixels
    shared = header(CTImageStorage, "CT", **elements)
    files = []
    for index, picture in enumerate(pixels):
        one = with_pixels(Dataset(), picture)
        one.update(shared)
        one.file_meta = FileMetaDataset()
        one.file_meta.update(shared.file_meta)
        one.SOPInstanceUID = generate_uid()
        one.file_meta.MediaStorageSOPInstanceUID = one.SOPInstanceUID
        one.ImagePositionPatient = [*ORIGIN_MM[:2], ORIGIN_MM[2] + SPACING_MM[2] * index]
        one.ImageOrientationPatient = list(AXIAL)
        one.PixelSpacing = [SPACING_MM[1], SPACING_MM[0]]
        one.SliceThickness, one.RescaleSlope, one.RescaleIntercept = SPACING_MM[2], 2, -10
        one.InstanceNumber = index + 1
        for name, value in elements.items():
            setattr(one, name, value)
        change(index, one)
        files.append(folder / f"{(index * 7) % 11:02d}.dcm")
        one.save_as(files[-1], enforce_file_format=True)
    return files


def write_enhanced(path: Path, pixels: np.ndarray, slopes: Sequence[float]) -> Path:
    """Write a multi-frame MR whose frames come from head to feet, each with a slope of its own."""
    found = with_pixels(header(EnhancedMRImageStorage, "MR"), pixels)
    found.NumberOfFrames = len(pixels)
    orientation, measures = Dataset(), Dataset()
    orientation.ImageOrientationPatient = list(AXIAL)
    measures.PixelSpacing, measures.SliceThickness = [SPACING_MM[1], SPACING_MM[0]], SPACING_MM[2]
    shared = Dataset()
    shared.PlaneOrientationSequence, shared.PixelMeasuresSequence = [orientation], [measures]
    found.SharedFunctionalGroupsSequence = [shared]
    groups = []
    for index, slope in enumerate(slopes):
        group, place, scale = Dataset(), Dataset(), Dataset()
        place.ImagePositionPatient = [*ORIGIN_MM[:2], ORIGIN_MM[2] - SPACING_MM[2] * index]
        scale.RescaleSlope, scale.RescaleIntercept, scale.RescaleType = slope, 1, "US"
        group.PlanePositionSequence = [place]
        group.PixelValueTransformationSequence = [scale]
        groups.append(group)
    found.PerFrameFunctionalGroupsSequence = groups
    found.save_as(path, enforce_file_format=True)
    return path


def write_undecodable(path: Path, syntax: str) -> Path:
    """Write a slice that says it is compressed in a way, and holds four bytes."""
    found = with_pixels(header(CTImageStorage, "CT"), stored_volume()[0])
    found.file_meta.TransferSyntaxUID = syntax
    found.PixelData = encapsulate([b"\x00\x01\x02\x03"])
    found["PixelData"].VR = "OB"
    found.save_as(path, enforce_file_format=True)
    return path


def write_segmentation(
    path: Path, series: Sequence[Path], masks: Mapping[int, np.ndarray], **keywords: Any
) -> Path:
    """Write the masks [slices, rows, columns] of each segment, slices in the order of the files."""
    numbers = sorted(masks)
    hd.seg.Segmentation(
        source_images=[dcmread(file) for file in series],
        pixel_array=np.stack([masks[number] for number in numbers], axis=-1),
        segmentation_type=keywords.pop("segmentation_type", "BINARY"),
        segment_descriptions=[
            hd.seg.SegmentDescription(
                segment_number=number,
                segment_label=f"segment {number}",
                segmented_property_category=codes.SCT.Organ,
                segmented_property_type=codes.SCT.Liver,
                algorithm_type=hd.seg.SegmentAlgorithmTypeValues.MANUAL,
            )
            for number in numbers
        ],
        series_instance_uid=generate_uid(),
        series_number=2,
        sop_instance_uid=generate_uid(),
        instance_number=1,
        manufacturer="ACME",
        manufacturer_model_name="none",
        software_versions="1",
        device_serial_number="1",
        **keywords,
    ).save_as(path)
    return path


def write_contours(
    path: Path,
    outlines_mm: Mapping[int, Sequence[np.ndarray]],
    series: str = "1.2.3",
    patient: str = "MRN-4711",
    kind: str = "CLOSED_PLANAR",
    frame_of_reference: str = "",
) -> Path:
    """Write an RTSTRUCT; outlines_mm: by number of the region, its outlines [N, 3] in LPS."""
    found = header(RTStructureSetStorage, "RTSTRUCT", StructureSetLabel="a", PatientID=patient)
    found.StructureSetROISequence, found.ROIContourSequence = [], []
    frame, study, of = Dataset(), Dataset(), Dataset()
    of.SeriesInstanceUID, study.RTReferencedSeriesSequence = series, [of]
    frame.RTReferencedStudySequence = [study]
    frame.FrameOfReferenceUID = frame_of_reference
    found.ReferencedFrameOfReferenceSequence = [frame]
    for number, outlines in outlines_mm.items():
        region, roi = Dataset(), Dataset()
        roi.ROINumber, roi.ROIName = number, f"region {number}"
        region.ReferencedROINumber, region.ContourSequence = number, []
        for points_mm in outlines:
            contour = Dataset()
            contour.ContourGeometricType = kind
            contour.NumberOfContourPoints = len(points_mm)
            contour.ContourData = [float(mm) for mm in np.ravel(points_mm)]
            region.ContourSequence.append(contour)
        found.StructureSetROISequence.append(roi)
        found.ROIContourSequence.append(region)
    found.save_as(path, enforce_file_format=True)
    return path


def square_mm(low: tuple[int, int], high: tuple[int, int], index: int) -> np.ndarray:
    """[4, 3]: the corners, in LPS, half-way between voxels, of columns and rows on a slice."""
    (left, up), (right, down) = low, high
    corners = np.array([(left, up), (right, up), (right, down), (left, down)]) - 0.5
    places = np.column_stack([corners, np.full(4, index)])
    return np.asarray(ORIGIN_MM) + places * SPACING_MM
