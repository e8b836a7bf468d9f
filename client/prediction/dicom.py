"""Answers as DICOM objects that a PACS keeps beside the images: DICOM-SEG, and captured screens.

Shape suffixes: F frames, R rows, K columns, X Y Z a reader's axes (RAS+).
"""

from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import highdicom as hd
import numpy as np
from nibabel.orientations import (
    apply_orientation,
    axcodes2ornt,
    io_orientation,
    ornt_transform,
)
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.sr.codedict import codes
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from client.readers.dicom_files import read_header, refusing, series_files
from client.readers.dicom_frames import frame_planes
from client.readers.dicom_planes import stack
from client.readers.picture import BadFileError
from common.config import study_digest
from common.study import Study

MAKER = "wardround"
SCHEME = "99WARDROUND"
"""A coding scheme of our own (PS3.3, 8.2): a study names its classes as it likes."""
MOST_OF_A_CODE = 16
"""Characters of a coded value (VR SH, PS3.5, 6.2)."""
SERIES_NUMBER = 900
UPRIGHT, UNKNOWN_WAY = ("R", "P"), ("L", "F")
"""Where rows and columns of a captured slice run to; of a radiograph that does not tell."""


def segmentation_of(source: Path, classes_XYZ: NDArray[np.uint8], study: Study) -> Dataset:
    """Return a binary DICOM-SEG that refers to every picture of its source.

    source: a file or a folder with one series. classes_XYZ: on the reader's axes (of a radiograph
    XY); segment k is the study's class k, counted from 1.

    Raises:
        BadFileError: no DICOM-SEG can refer to the source, such as a Siemens mosaic.
    """
    sources = [read_header(file) for file in series_files(source)]
    if "MOSAIC" in sources[0].get("ImageType", []):
        raise BadFileError(
            source,
            "is a Siemens mosaic, of whose slices no DICOM-SEG speaks",
            "export it as one file a slice",
        )
    with refusing(source, "is a series that no DICOM-SEG can refer to"):
        frames_FRK, ordered = _on_frames(source, sources, classes_XYZ)
        found: Dataset = hd.seg.Segmentation(
            source_images=ordered,
            pixel_array=frames_FRK,
            segmentation_type=hd.seg.SegmentationTypeValues.BINARY,
            segment_descriptions=[
                _segment(number, name, study) for number, name in enumerate(study.task.classes, 1)
            ],
            content_label="WARDROUND",
            content_description=f"study {study.name}"[:64],
            transfer_syntax_uid=ExplicitVRLittleEndian,
            **_made(),
        )
        return found


def capture_of(source: Path, picture_RKC: NDArray[np.uint8], study: Study, said: str) -> Dataset:
    """Return a picture in colour as a secondary capture of its source's patient and study.

    said: what the model says, in a sentence; it stands in ImageComments too.
    """
    first = read_header(series_files(source)[0])
    upright = "ImagePositionPatient" in first or "PerFrameFunctionalGroupsSequence" in first
    way = UPRIGHT if upright else tuple(first.get("PatientOrientation") or UNKNOWN_WAY)
    made = _made()
    with refusing(source, "has a header that no secondary capture can be made of"):
        found: Dataset = hd.sc.SCImage.from_ref_dataset(
            ref_dataset=first,
            pixel_array=picture_RKC,
            photometric_interpretation=hd.PhotometricInterpretationValues.RGB,
            bits_allocated=8,
            coordinate_system=hd.CoordinateSystemNames.PATIENT,
            patient_orientation=way,
            transfer_syntax_uid=ExplicitVRLittleEndian,
            **{name: made[name] for name in _OF_CAPTURES},
        )
        found.SeriesDescription = f"{MAKER}, study {study.name}"[:64]
        found.ImageComments = said
        return found


_OF_CAPTURES = (
    "series_instance_uid",
    "series_number",
    "sop_instance_uid",
    "instance_number",
    "manufacturer",
)


def _made() -> Mapping[str, Any]:
    return {
        "series_instance_uid": generate_uid(),
        "series_number": SERIES_NUMBER,
        "sop_instance_uid": generate_uid(),
        "instance_number": 1,
        "manufacturer": MAKER,
        "manufacturer_model_name": MAKER,
        "software_versions": version(MAKER),
        "device_serial_number": "-",
    }


def _on_frames(
    source: Path, sources: Sequence[Dataset], classes_XYZ: NDArray[np.uint8]
) -> tuple[NDArray[np.uint8], list[Dataset]]:
    """Return the classes frame by frame, and the pictures that the frames are of."""
    counts = [int(header.get("NumberOfFrames") or 1) for header in sources]
    found = [frame_planes(header, n) for header, n in zip(sources, counts, strict=True)]
    if any(planes is None for planes in found):
        return np.ascontiguousarray(classes_XYZ.T)[None], list(sources)
    stacked = stack(source, [plane for planes in found for plane in planes or []])
    own = io_orientation(stacked.affine)
    stored_KRF = apply_orientation(classes_XYZ, ornt_transform(axcodes2ornt("RAS"), own))
    frames_FRK = np.ascontiguousarray(stored_KRF.transpose(2, 1, 0))
    if len(sources) > 1:
        return frames_FRK, [sources[place] for place in stacked.order]
    # Of one file the frames stand as the file has them.
    return frames_FRK[np.argsort(stacked.order)], list(sources)


def _code(number: int, name: str) -> str:
    """Return the class's code, of 16 characters at most; its number where a name is longer."""
    return name if len(name) <= MOST_OF_A_CODE else f"class {number}"


def _segment(number: int, name: str, study: Study) -> hd.seg.SegmentDescription:
    return hd.seg.SegmentDescription(
        segment_number=number,
        segment_label=name[:64],
        segmented_property_category=hd.sr.CodedConcept("class", SCHEME, "class of a study"),
        segmented_property_type=hd.sr.CodedConcept(_code(number, name), SCHEME, name[:64]),
        algorithm_type=hd.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=hd.AlgorithmIdentificationSequence(
            name=f"{MAKER} {study.name}"[:64],
            family=codes.DCM.ArtificialIntelligence,
            version=study_digest(study),
            source=MAKER,
        ),
    )
