"""The images of a row of a manifest: which files, as channels of one grid, as samples.

Shape suffixes: K samples of the file, C channels, S spatial axes.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from torch import Tensor

from client.manifest import Row
from client.readers import BadFileError, Picture, read_image
from common.data_config import SEQUENCE, DataConfig

_TOLERANCE = 0.5
"""Voxels by which a corner of mask and image may lie apart: below it each voxel's nearest one in
the other grid is its own. Rounded headers of real scanners differ by up to 0.15."""


@dataclass(frozen=True, kw_only=True)
class Acquired:
    """How a file came, before it was resampled."""

    spacing_mm: tuple[float, ...]
    size: tuple[int, ...]
    """Voxels along each axis."""


def images_of(row: Row, data: DataConfig) -> dict[str, Path]:
    """Return the files that the channels come from, by sequence; a plain image has no name.

    Raises:
        BadFileError: the row has none of the sequences that the study names.
    """
    if data.sequences is None:
        return {"": row.image}
    found = {name: row.sequences[name] for name in data.sequences if name in row.sequences}
    if not found:
        raise BadFileError(
            row.image,
            f"has none of the sequences {', '.join(data.sequences)}",
            f"name one or more in columns such as {SEQUENCE}{data.sequences[0]}, or leave it out",
        )
    return found


def image_of(row: Row, data: DataConfig) -> Picture:
    """Return the image; of several sequences each is a channel, and one that is missing is 0."""
    files = images_of(row, data)
    if data.sequences is None:
        return _picture(row.image, data.channels, data)
    read = {name: _picture(path, 1, data) for name, path in files.items()}
    first = next(iter(read.values()))
    for name, picture in read.items():
        check_same_grid(files[name], picture, next(iter(files.values())), first)
    none = np.zeros_like(first.array_CS)
    channels = [read[name].array_CS if name in read else none for name in data.sequences]
    return replace(first, array_CS=np.concatenate(channels))


def image_for(path: Path, data: DataConfig) -> Picture:
    """Return an image that the study can use, before anything is done to it.

    Raises:
        BadFileError: as read_image, or it has fewer axes than the study's samples.
    """
    return _picture(path, data.channels, data)


def _picture(path: Path, channels: int, data: DataConfig) -> Picture:
    image = read_image(path, channels)
    if len(image.spacing_mm) < data.spatial_dims:
        raise BadFileError(
            path,
            "is a 2-D picture, and the study works on volumes (data.spatial_dims=3)",
            "leave it out, or take part in a study with data.spatial_dims=2",
        )
    return image


def acquired_of(image: Picture) -> Acquired:
    """Return how a file came."""
    return Acquired(spacing_mm=tuple(image.spacing_mm), size=tuple(image.array_CS.shape[1:]))


def samples_in(prepared_CS: Tensor, data: DataConfig) -> Tensor:
    """Return [K, C, *size]: each axial slice of a volume in a 2-D study, else the one sample."""
    if prepared_CS.ndim - 1 > data.spatial_dims:
        return prepared_CS.movedim(-1, 0).contiguous()
    return prepared_CS[None]


def check_same_grid(path: Path, other: Picture, image_path: Path, image: Picture) -> None:
    """Raise BadFileError unless a mask, or another sequence, lies on the grid of the image."""
    ours, theirs = image.array_CS.shape[1:], other.array_CS.shape[1:]
    if ours != theirs:
        raise BadFileError(
            path,
            f"has the shape {theirs}, its image {image_path} has {ours}",
            "draw or resample it on the grid of its image",
        )
    if image.affine is None or other.affine is None:
        return
    ends = [(0, n - 1) for n in ours]
    corners = np.stack([grid.ravel() for grid in np.meshgrid(*ends)])
    apart_mm = (image.affine - other.affine) @ np.vstack([corners, np.ones(corners.shape[1])])
    largest_mm = float(np.linalg.norm(apart_mm[:3], axis=0).max())
    if largest_mm > _TOLERANCE * min(image.spacing_mm):
        raise BadFileError(
            path,
            f"lies up to {largest_mm:.3g} mm away from its image {image_path} (other affine)",
            "resample it to its image, or correct the header that is wrong",
        )
