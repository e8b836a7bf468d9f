"""From a file's voxels to a sample: the deterministic part (prepare) and the random part (augment).

Shape suffixes: B samples, C channels, S spatial axes, X Y Z one by one, of which X is left-right.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from monai.transforms import ResizeWithPadOrCrop
from numpy.typing import NDArray
from scipy.stats import rankdata
from torch import Tensor
from torch.nn import functional as F

from common.data_config import DataConfig
from common.fourier import mixed
from common.harmonise import matched, without_bias
from common.resampling import ratios, resample
from common.segments import ALONE, Around, segments

Prepare = Callable[
    [NDArray[Any], NDArray[Any] | None, Sequence[float]],
    tuple[Tensor, Tensor | None, tuple[float, ...]],
]
"""(image_CS, mask_1S or None, spacing_mm) -> (image float32, mask int64, new spacing_mm)."""
Augment = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""(images_BCS, masks_B1S or labels_B) -> the same, changed at random."""

MAX_ROTATION_RAD = math.radians(10.0)
MAX_SCALE = 0.1
MAX_CONTRAST = 0.1
MAX_BRIGHTNESS = 0.1
_FLAT = 1e-6
"""Spread over magnitude below which float32 tells no difference between voxels."""


def prepare(data: DataConfig) -> Prepare:
    """Return the deterministic part: resample to the spacing, remove the bias, normalise, size.

    A volume in a 2-D study is normalised as one volume; its slices keep their number and distance,
    and spacing and size are those of the plane.

    Images are interpolated linearly, widened where they shrink so that nothing is skipped; masks
    take the nearest voxel. Values are normalised over all voxels of a channel, before padding.
    Padding is 0: the mean after zscore, the minimum after minmax, the median after rank; after it
    an image is matched, if it is. It is what
    a convolution pads with, so the border looks the same everywhere, and no single dark voxel sets
    its value.
    """

    def run(
        image_CS: NDArray[Any], mask_1S: NDArray[Any] | None, spacing_mm: Sequence[float]
    ) -> tuple[Tensor, Tensor | None, tuple[float, ...]]:
        mask = None if mask_1S is None else torch.as_tensor(mask_1S, dtype=torch.int64)
        image, mask, spacing = _normalised(data, torch.as_tensor(image_CS), mask, spacing_mm)
        size = [*data.size, *image.shape[1 + data.spatial_dims :]]
        if data.fit == "resize":
            steps = ratios(image.shape[1:], size)
            image, mask = resample(image, mask, size, steps)
            spacing = tuple(mm * step for mm, step in zip(spacing, steps, strict=True))
        else:
            fit = ResizeWithPadOrCrop(size)
            image = fit(image).as_tensor()
            mask = None if mask is None else fit(mask).as_tensor()
        if data.reference is not None:
            image = _matched(image, data.reference)
        return image, mask, spacing

    return run


@dataclass(frozen=True, kw_only=True)
class Whereabouts:
    """Where the voxels of an image that was prepared whole lie among the file's own.

    Each has one number per axis of a sample; the slices of a volume keep their places.
    """

    own: tuple[int, ...]
    """Voxels of the file."""
    resampled: tuple[int, ...]
    """Voxels after resampling to the study's spacing."""
    steps: tuple[float, ...]
    """Of a resampled voxel, in the file's voxels."""
    size: tuple[int, ...]
    """Voxels of the prepared image."""
    resized: bool
    """Whether it was resized to `size`; else it was padded."""


def prepare_whole(
    data: DataConfig, image_CS: NDArray[Any], spacing_mm: Sequence[float]
) -> tuple[Tensor, Whereabouts]:
    """Return the image as `prepare` makes it, but with nothing of it cropped away.

    An image that `prepare` does not crop comes out the same. Of a larger one every voxel is there,
    for a network that is moved over it.
    """
    dims = data.spatial_dims
    image, _, spacing = _normalised(data, torch.as_tensor(image_CS), None, spacing_mm)
    resampled = tuple(image.shape[1 : 1 + dims])
    resized = data.fit == "resize"
    size = data.size if resized else [max(*pair) for pair in zip(data.size, resampled, strict=True)]
    whole = [*size, *image.shape[1 + dims :]]
    if resized:
        image, _ = resample(image, None, whole, ratios(image.shape[1:], whole))
    else:
        image = ResizeWithPadOrCrop(whole)(image).as_tensor()
    if data.reference is not None:
        image = _matched(image, data.reference)
    return image, Whereabouts(
        own=tuple(image_CS.shape[1 : 1 + dims]),
        resampled=resampled,
        steps=tuple(ratios(spacing[:dims], spacing_mm[:dims])),
        size=tuple(size),
        resized=resized,
    )


def back_to_own(values_KS: Tensor, where: Whereabouts) -> Tensor:
    """Return values on a prepared image's voxels as values on the file's own, float32.

    K: anything, such as classes. Interpolated linearly about the same centre, which is where
    `prepare` put it; what padding added is taken away. Axes beyond the sample's stay as they are.
    """
    rest = list(values_KS.shape[1 + len(where.own) :])
    if where.resized:
        steps = [*ratios(where.size, where.resampled), *[1.0] * len(rest)]
        values_KS, _ = resample(values_KS, None, [*where.resampled, *rest], steps)
    else:
        for axis, (kept, padded) in enumerate(zip(where.resampled, where.size, strict=True), 1):
            # As MONAI pads: the smaller half first.
            values_KS = values_KS.narrow(axis, (padded - kept) // 2, kept)
    steps = [*(1 / step for step in where.steps), *[1.0] * len(rest)]
    return resample(values_KS, None, [*where.own, *rest], steps)[0]


def _normalised(
    data: DataConfig, image_CS: Tensor, mask_1S: Tensor | None, spacing_mm: Sequence[float]
) -> tuple[Tensor, Tensor | None, tuple[float, ...]]:
    """Return both at the study's spacing, the image without bias and with its values made alike."""
    image = image_CS.to(torch.float32)
    spacing = tuple(float(mm) for mm in spacing_mm)
    if data.spacing_mm is not None:
        wanted = (*data.spacing_mm, *spacing[data.spatial_dims :])
        shape = [
            max(1, round(n * old / new))
            for n, old, new in zip(image.shape[1:], spacing, wanted, strict=True)
        ]
        image, mask_1S = resample(image, mask_1S, shape, ratios(wanted, spacing))
        spacing = wanted
    image = without_bias(image) if data.remove_bias else image
    return _normalise(image, data.normalise), mask_1S, spacing


def augment(data: DataConfig, draws: torch.Generator, around: Around = ALONE) -> Augment:
    """Return the random part; each call draws on, and the same start gives the same bytes.

    none: as it is. flip: each sample is mirrored left-right with probability 1/2. full: flip, then
    a rotation up to 10 degrees (3-D: about each axis), a scale of 0.9 to 1.1, and an intensity
    scale of 0.9 to 1.1 and shift of -0.1 to 0.1 a sample. Angles are in voxels: with voxels that
    are not cubes the rotation also shears a little. Masks move with their images, by the nearest
    voxel; the label of a classification passes through. With data.amplitudes each image is first
    seen in the style of a site (common/fourier.py). With data.sequence_dropout channels are missing
    by chance. With data.segment a part is left of each image and its mask, of the image with what
    its network needs around it (common/segments.py).
    """
    styles_KF = None if data.amplitudes is None else torch.tensor(data.amplitudes)

    def run(images_BCS: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        # Poisson batches may be empty, and grid_sample refuses those.
        if len(images_BCS) == 0:
            return images_BCS, targets
        there_BC = images_BCS.flatten(2).any(dim=2)
        if styles_KF is not None:
            images_BCS = mixed(images_BCS, styles_KF, draws)
        images = images_BCS
        if data.augment != "none":
            images, targets = _flip(images, targets, draws)
        if data.augment == "full":
            images, targets = _affine(images, targets, draws)
            images = _intensity(images, draws)
        if data.sequences is not None:
            # What is missing stays so, whatever was added.
            images = _only(images, there_BC)
        if data.sequence_dropout:
            images = _without_some(images, there_BC, data.sequence_dropout, draws)
        if data.segment is not None:
            of_classes = data.segment_of_classes or 0.0
            images, targets = segments(images, targets, data.segment, of_classes, draws, around)
        return images, targets

    def beside_covariates(images_BCS: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        # They are no picture: nothing moves or scales them.
        images, targets = run(images_BCS[:, : data.channels], targets)
        return torch.cat([images, images_BCS[:, data.channels :]], dim=1), targets

    return run if data.covariates is None else beside_covariates


def _normalise(image_CS: Tensor, how: str) -> Tensor:
    """Return each channel with mean 0 and deviation 1 (zscore), from 0 to 1 (minmax), or ranked.

    rank: the normal quantile of each voxel's share of darker ones, equal voxels at their middle
    (van der Waerden, 1952). It is the image matched to one histogram for all sites, which nobody
    has to tell. matched: as zscore; the matching comes when the image has its size. A channel
    without contrast becomes 0: its rounding errors are not blown up.
    """
    flat = image_CS.flatten(1).double()
    if how in ("zscore", "matched"):
        offset, spread = flat.mean(dim=1), flat.std(dim=1, correction=0)
    else:
        offset, spread = flat.amin(dim=1), flat.amax(dim=1) - flat.amin(dim=1)
    has_contrast = spread > _FLAT * flat.abs().amax(dim=1)
    if how == "rank":
        made = torch.where(has_contrast[:, None], torch.special.ndtri(_shares(flat)), 0.0)
    else:
        made = (flat - offset[:, None]) * torch.where(has_contrast, 1 / spread, 0.0)[:, None]
    return made.reshape(image_CS.shape).float()


def _matched(image_CS: Tensor, reference: Sequence[float]) -> Tensor:
    """Return the image with the reference's histogram; a channel of one value stays as it is.

    Padding takes part, as it does in the histograms that references are made of.
    """
    flat = image_CS.flatten(1).double()
    varies = flat.amax(1, keepdim=True) > flat.amin(1, keepdim=True)
    made = torch.where(varies, matched(_shares(flat), reference), flat)
    return made.reshape(image_CS.shape).float()


def _shares(flat_CP: Tensor) -> Tensor:
    """Return each voxel's share of darker ones in its channel; equal voxels have their middle."""
    return torch.from_numpy(rankdata(flat_CP.numpy(), axis=1)) / (flat_CP.shape[1] + 1)


def _is_mask(images_BCS: Tensor, targets: Tensor) -> bool:
    return targets.ndim == images_BCS.ndim


def _uniform(rows: int, columns: int, limit: float, draws: torch.Generator) -> Tensor:
    return (torch.rand(rows, columns, generator=draws) * 2 - 1) * limit


def _flip(images_BCS: Tensor, targets: Tensor, draws: torch.Generator) -> tuple[Tensor, Tensor]:
    chosen = (torch.rand(len(images_BCS), generator=draws) < 0.5).to(images_BCS.device)

    def mirrored(tensor: Tensor) -> Tensor:
        where = chosen.reshape(-1, *[1] * (tensor.ndim - 1))
        return torch.where(where, tensor.flip(2), tensor)

    if _is_mask(images_BCS, targets):
        targets = mirrored(targets)
    return mirrored(images_BCS), targets


def _affine(images_BCS: Tensor, targets: Tensor, draws: torch.Generator) -> tuple[Tensor, Tensor]:
    batch, dims = len(images_BCS), images_BCS.ndim - 2
    angles = _uniform(batch, 1 if dims == 2 else 3, MAX_ROTATION_RAD, draws)
    scale = 1 + _uniform(batch, 1, MAX_SCALE, draws)
    # affine_grid counts the last axis first, and each axis from -1 to 1 whatever its length.
    size = torch.tensor(images_BCS.shape[:1:-1], dtype=torch.float32)
    matrix = _rotation(angles, dims) / scale[:, :, None] * (size[None, :] / size[:, None])
    theta = torch.cat([matrix, torch.zeros(batch, dims, 1)], dim=2).to(images_BCS.device)
    grid = F.affine_grid(theta, list(images_BCS.shape), align_corners=False)
    if _is_mask(images_BCS, targets):
        moved = F.grid_sample(targets.float(), grid, mode="nearest", align_corners=False)
        targets = moved.to(targets.dtype)
    return F.grid_sample(images_BCS, grid, mode="bilinear", align_corners=False), targets


def _rotation(angles_BA: Tensor, dims: int) -> Tensor:
    """Return rotations [B, dims, dims]: one angle in 2-D, three (one a plane) in 3-D."""
    planes = [(0, 1)] if dims == 2 else [(0, 1), (0, 2), (1, 2)]
    result = torch.eye(dims).repeat(len(angles_BA), 1, 1)
    for (a, b), angle in zip(planes, angles_BA.T, strict=True):
        turn = torch.eye(dims).repeat(len(angles_BA), 1, 1)
        turn[:, a, a] = turn[:, b, b] = angle.cos()
        turn[:, a, b], turn[:, b, a] = -angle.sin(), angle.sin()
        result = result @ turn
    return result


def _without_some(
    images_BCS: Tensor, there_BC: Tensor, chance: float, draws: torch.Generator
) -> Tensor:
    """Return the images with channels at 0, each by this chance; where all would be, none is."""
    drawn_BC = torch.rand(*there_BC.shape, generator=draws) >= chance
    kept_BC = drawn_BC.to(there_BC.device) & there_BC
    kept_BC |= ~kept_BC.any(dim=1, keepdim=True)
    return _only(images_BCS, kept_BC)


def _only(images_BCS: Tensor, kept_BC: Tensor) -> Tensor:
    return images_BCS * kept_BC.reshape(*kept_BC.shape, *[1] * (images_BCS.ndim - 2))


def _intensity(images_BCS: Tensor, draws: torch.Generator) -> Tensor:
    shape = (-1, *[1] * (images_BCS.ndim - 1))
    contrast = 1 + _uniform(len(images_BCS), 1, MAX_CONTRAST, draws)
    brightness = _uniform(len(images_BCS), 1, MAX_BRIGHTNESS, draws)
    contrast, brightness = (t.reshape(shape).to(images_BCS) for t in (contrast, brightness))
    return images_BCS * contrast + brightness
