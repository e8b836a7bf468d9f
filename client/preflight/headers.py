"""What the header of an image says of scanner and patient. Names of fields, never values."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
from PIL import ExifTags, Image

from client.readers import BadFileError
from client.readers.registry import READERS, ending

_RASTER = (".png", ".jpg", ".jpeg")
_TEXT_FIELDS = ("descrip", "aux_file", "db_name", "intent_name")
"""Of a NIfTI header."""
_PERSONAL = re.compile(
    rb"\^|(19|20)\d{2}[-/.]?(0[1-9]|1[0-2])[-/.]?([0-2]\d|3[01])|patient|name|birth|dob", re.I
)
"""A text with a caret (a DICOM name), a date, or a word for it."""
_HARMLESS_EXIF = {"Orientation", "ColorSpace", "ExifOffset", "XResolution", "YResolution"}
_HARMLESS_EXIF |= {"ResolutionUnit", "YCbCrPositioning", "ExifVersion", "ComponentsConfiguration"}
_HARMLESS_PNG = {"dpi", "gamma", "srgb", "transparency", "interlace", "chromaticity", "aspect"}
_HARMLESS_PNG |= {"jfif", "jfif_version", "jfif_density", "jfif_unit", "exif", "icc_profile"}
_HARMLESS_PNG |= {"progressive", "progression", "adobe", "adobe_transform", "Software"}


@dataclass(frozen=True, kw_only=True)
class About:
    """What one image's header says."""

    modality: str = ""
    scanner: str = ""
    """Vendor and model."""
    field_t: str = ""
    """Field strength in tesla, as the header has it."""
    orientation: str = ""
    """How a volume was stored: the direction in which each axis grows, as RAS or LPS."""
    identifying: tuple[str, ...] = ()
    """Fields that may tell who the patient is; of DICOM those of persons first."""
    says_burned_in: bool = False
    """The header itself says that there is text in the pixels."""


def about(path: Path) -> About:
    """Return what the header of an image says.

    Raises:
        BadFileError: it cannot be read.
    """
    kind = ending(path)
    if path.is_dir() or kind not in READERS or kind == ".dcm":
        # A site without DICOM does without its libraries.
        from client.preflight.dicom_headers import about_series

        return about_series(path)
    return _about_picture(path) if kind in _RASTER else _about_nifti(path)


def _about_nifti(path: Path) -> About:
    try:
        image = nib.load(path)
        header = image.header
        texts = {name: bytes(header[name].item()) for name in _TEXT_FIELDS if name in header}
        found = [name for name, text in texts.items() if _PERSONAL.search(text)]
        found += [f"extension {e.get_code()}" for e in header.extensions if e.get_content()]
        orientation = "".join(str(axis) for axis in nib.aff2axcodes(image.affine))
    # A header that is broken is told by its reader, with the reason.
    except Exception as error:
        raise BadFileError(path, "has a header that cannot be read", "export it again") from error
    return About(orientation=orientation, identifying=tuple(sorted(set(found))))


def _about_picture(path: Path) -> About:
    try:
        with Image.open(path) as image:
            # Texts may stand behind the pixels.
            image.load()
            chunks = [str(name) for name in image.info if str(name) not in _HARMLESS_PNG]
            fields = set(_exif_fields(image))
    except Exception as error:
        raise BadFileError(path, "has a header that cannot be read", "export it again") from error
    return About(identifying=tuple(sorted({*chunks, *fields})))


def _exif_fields(image: Image.Image) -> Iterator[str]:
    exif = image.getexif()
    parts: Iterable[tuple[str, Iterable[int]]] = [
        ("", exif),
        ("", exif.get_ifd(ExifTags.IFD.Exif)),
        ("GPS ", exif.get_ifd(ExifTags.IFD.GPSInfo)),
    ]
    for prefix, tags in parts:
        for tag in tags:
            name = ExifTags.GPSTAGS.get(tag) if prefix else ExifTags.TAGS.get(tag)
            if name not in _HARMLESS_EXIF:
                yield f"Exif {prefix}{name or tag}"
