"""A digital head: tissue labels of one invented patient.

Legend of shape suffixes: X to the patient's right, Y to the front, Z to the top of the head
(RAS+). Lengths are in mm from the centre of the grid, times in ms.

The head is a stack of curves, not a scan: an egg-shaped envelope, a folded ribbon of grey matter,
deep grey nuclei, lateral ventricles that grow with age, and multiple-sclerosis-like lesions in the
white matter near them. It holds a slab of 30 mm at the height of the ventricles.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from common.checks import in_range, not_negative, positive
from simulation.tissues import Tissue

Field = NDArray[np.float32]
Shape = tuple[int, int, int]
Spacing = tuple[float, float, float]

GRID_SHAPE: Shape = (144, 144, 30)
GRID_SPACING_MM: Spacing = (1.5, 1.5, 1.0)
ADULT_AGES = (18.0, 95.0)

# Of so many voxels along X the intermediate results stay in a processor's cache.
_SLAB = 8
_CSF_MM, _SKULL_MM, _SCALP_MM, _CORTEX_MM = 2.0, 5.5, 5.0, 3.2


@dataclass(frozen=True, kw_only=True)
class CaseMix:
    """Which patients a hospital sees."""

    lesions_mean: float = 10.0
    """Mean number of lesions of a patient in the slab (Poisson); 0: healthy people."""
    lesion_size_mm: float = 10.0
    """Median diameter of a lesion, 4 to 16; diameters are log-normal, kept within 4 to 16 mm, and
    each axis is then stretched or shrunk by some 18 %."""
    lesion_size_spread: float = 0.3
    """Standard deviation of the logarithm of the diameter; 0: all alike."""
    age_mean: float = 45.0
    """Mean age in years; ages are normal, kept within 18 to 95."""
    age_spread: float = 12.0
    """Standard deviation of the age in years."""
    ventricle_spread: float = 0.15
    """Standard deviation of the logarithm of the ventricles' width at equal age."""

    def __post_init__(self) -> None:
        not_negative(lesions_mean=self.lesions_mean, lesion_size_spread=self.lesion_size_spread)
        not_negative(age_spread=self.age_spread, ventricle_spread=self.ventricle_spread)
        in_range(4.0, 16.0, lesion_size_mm=self.lesion_size_mm)
        in_range(*ADULT_AGES, age_mean=self.age_mean)


@dataclass(frozen=True, kw_only=True)
class Anatomy:
    """One patient's tissues on a fine grid, RAS+, the grid's centre at the world's origin."""

    labels_XYZ: NDArray[np.uint8]
    """Values of Tissue."""
    spacing_mm: Spacing
    """Distance of neighbouring voxels along X, Y, Z."""
    age_years: float
    """The patient's age."""
    later_XYZ: NDArray[np.uint8] | None = None
    """The tissues at a second visit; None: there is one visit."""


def smooth_field(
    rng: np.random.Generator, shape: Shape, spacing_mm: Spacing, length_mm: float
) -> Field:
    """Return a Gaussian random field, mean 0, variance 1, that varies over about length_mm.

    White noise on nodes half a length apart, spread by a separable Gaussian kernel whose weights
    have unit square sum at every voxel. Raises ValueError unless length_mm > 0.
    """
    positive(length_mm=length_mm)
    weights = []
    for size, step_mm in zip(shape, spacing_mm, strict=True):
        at_mm = np.arange(size) * step_mm
        nodes_mm = np.arange(-2, 2 * at_mm[-1] / length_mm + 3) * length_mm / 2
        kernel = np.exp(-2.0 * ((at_mm[:, None] - nodes_mm) / length_mm) ** 2)
        kernel /= np.sqrt((kernel**2).sum(axis=1, keepdims=True))
        weights.append(kernel.astype(np.float32))
    along_x, along_y, along_z = weights
    nodes = rng.standard_normal([kernel.shape[1] for kernel in weights], dtype=np.float32)
    # Z first and X last: the long axes are expanded when the array is still small.
    spread = (nodes.reshape(-1, nodes.shape[2]) @ along_z.T).reshape(*nodes.shape[:2], -1)
    spread = np.matmul(along_y, spread)
    return np.asarray((along_x @ spread.reshape(len(spread), -1)).reshape(shape), np.float32)


@dataclass(frozen=True)
class _Head:
    """One head's own coordinates over the grid, and what was drawn for it."""

    x_XY1: Field
    y_XY1: Field
    z_11Z: Field
    radius_XYZ: Field
    """0 at the centre, 1 at the surface of the brain."""
    scale_mm: float
    """Mean of the brain's half axes in the plane."""
    ventricle: float
    """Width of the ventricles, 1 at 45 years."""
    age_years: float

    def slab(self, of_x: slice) -> "_Head":
        """Return the part of the head at these indices along X."""
        x_XY1, y_XY1, radius_XYZ = (
            each[of_x] for each in (self.x_XY1, self.y_XY1, self.radius_XYZ)
        )
        return replace(self, x_XY1=x_XY1, y_XY1=y_XY1, radius_XYZ=radius_XYZ)


def _draw_head(case: CaseMix, rng: np.random.Generator, shape: Shape, spacing_mm: Spacing) -> _Head:
    """Draw age, size, shape and position, and lay the head's coordinates over the grid."""
    age = float(np.clip(rng.normal(case.age_mean, case.age_spread), *ADULT_AGES))
    centred = [
        ((np.arange(n) - (n - 1) / 2) * mm).astype(np.float32)
        for n, mm in zip(shape, spacing_mm, strict=True)
    ]
    x, y, z = np.meshgrid(*centred, indexing="ij", sparse=True)
    angle = float(rng.normal(0.0, np.deg2rad(4.0)))
    shift = rng.normal(0.0, [2.0, 2.0, 3.0]).astype(np.float32)
    x, y, z = x - shift[0], y - shift[1], z - shift[2]
    x_XY1 = (np.cos(angle) * x + np.sin(angle) * y).astype(np.float32)
    y_XY1 = (np.cos(angle) * y - np.sin(angle) * x).astype(np.float32)

    half_x, half_y = rng.normal(64.0, 2.5), min(rng.normal(79.0, 3.0), 84.0)
    polar = np.arctan2(y_XY1 / half_y, x_XY1 / half_x)
    outline = 1.0 - 0.035 * np.sin(polar)
    for order in (2, 3, 4):
        turn = rng.uniform(0.0, 2 * np.pi)
        outline += rng.normal(0.0, 0.02 / order) * np.cos(order * polar + turn)
    dome_11Z = np.sqrt(1.0 - np.clip((z + 4.0) / 62.0, -0.9, 0.9) ** 2)
    radius_XYZ = np.hypot(x_XY1 / half_x, y_XY1 / half_y) / outline / dome_11Z
    # Ventricles widen with age; the rate is invented, one of the right sign and size.
    ventricle = np.exp(0.012 * (age - 45.0) + rng.normal(0.0, case.ventricle_spread))
    return _Head(
        x_XY1,
        y_XY1,
        z.astype(np.float32),
        radius_XYZ.astype(np.float32),
        float(half_x + half_y) / 2,
        float(ventricle),
        age,
    )


def _sulci_mm(head: _Head, rng: np.random.Generator, spacing_mm: Spacing) -> Field:
    """Return the distance to the nearest sulcus, fissure or brain surface, about, in mm."""
    shape = head.radius_XYZ.shape
    warp_XYZ = 1.3 * smooth_field(rng, shape, spacing_mm, 40.0)
    warp_XYZ += 0.5 * smooth_field(rng, shape, spacing_mm, 15.0)
    folds = int(rng.integers(11, 14))
    slopes = np.gradient(warp_XYZ, *spacing_mm[:2], axis=(0, 1))
    reach_mm = 15.0 + 4.0 * smooth_field(rng, shape, spacing_mm, 30.0)
    nearest = np.empty(shape, np.float32)
    for start in range(0, shape[0], _SLAB):
        slab = slice(start, start + _SLAB)
        fields = (each[slab] for each in (warp_XYZ, *slopes, reach_mm))
        nearest[slab] = _nearest_mm(head.slab(slab), folds, *fields)
    return nearest


def _nearest_mm(
    head: _Head, folds: int, warp_XYZ: Field, slope_x: Field, slope_y: Field, reach_mm: Field
) -> Field:
    """Return that distance for a slab of the head.

    Sulci are the zeros of sin(n * polar angle + warp); |sin| / |gradient| is their distance near
    a zero. Where the sulcus has ended below the surface, the distance to its end counts.
    """
    square_mm2 = np.maximum(head.x_XY1**2 + head.y_XY1**2, 25.0)
    across_x = slope_x - folds * head.y_XY1 / square_mm2
    across_y = slope_y + folds * head.x_XY1 / square_mm2
    phase_XYZ = folds * np.arctan2(head.y_XY1, head.x_XY1) + warp_XYZ
    across_mm = np.abs(np.sin(phase_XYZ)) / np.maximum(np.hypot(across_x, across_y), 0.06)

    depth_mm = (1.0 - head.radius_XYZ) * head.scale_mm
    atrophy_mm = 0.35 * head.ventricle
    sulcus_mm = np.hypot(across_mm, np.maximum(depth_mm - reach_mm, 0.0)) - atrophy_mm

    wobble_mm = 1.2 * warp_XYZ
    end_mm = np.maximum(np.where(head.y_XY1 > 0, 36.0, 44.0) - np.abs(head.y_XY1), 0.0)
    midline_mm = np.hypot(head.x_XY1 + 0.4 * wobble_mm, end_mm) - 0.9
    beside_mm = np.abs(head.x_XY1)
    sylvian_y = 6.0 + 0.25 * (beside_mm - 45.0) + wobble_mm
    sylvian_mm = np.hypot(head.y_XY1 - sylvian_y, np.maximum(38.0 - beside_mm, 0.0)) - 1.1
    # The Sylvian fissure closes towards the top of the head.
    sylvian_mm = sylvian_mm + np.maximum(head.z_11Z - 6.0, 0.0)
    nearest = np.minimum(np.minimum(sulcus_mm, midline_mm), np.minimum(sylvian_mm, depth_mm))
    return np.asarray(nearest, np.float32)


def _ventricles_mm(head: _Head) -> Field:
    """Return the distance to the wall of the lateral ventricles, about, in mm; inside negative."""
    along = (head.y_XY1 + 6.0) / 38.0
    bend = np.where(along > 0, 8.0, 14.0)
    centre_mm = 3.2 + 2.2 * head.ventricle + bend * along**2
    taper = np.sqrt(np.maximum(1.0 - along**2, 0.0)) * (0.75 + 0.25 * np.cos(3.0 * along))
    arch_11Z = np.sqrt(np.maximum(1.0 - ((head.z_11Z - 2.0) / 24.0) ** 2, 0.0))
    half_mm = 5.0 * head.ventricle * taper * arch_11Z
    tip_mm = np.maximum(np.abs(along) - 1.0, 0.0) * 38.0
    return np.asarray(np.abs(np.abs(head.x_XY1) - centre_mm) + tip_mm - half_mm, np.float32)


def _nuclei(head: _Head) -> NDArray[np.bool_]:
    """Return where thalamus, lentiform nucleus and head of caudate are, below the upper slices."""
    inside = np.zeros(head.radius_XYZ.shape, bool)
    beside = np.abs(head.x_XY1) - 3.0 * (head.ventricle - 1.0)
    for centre, half_axes in (
        ((11.0, -10.0, -12.0), (8.0, 13.0, 12.0)),
        ((26.0, 7.0, -11.0), (6.0, 15.0, 13.0)),
        ((15.0, 24.0, -4.0), (4.5, 9.0, 14.0)),
    ):
        square = ((beside - centre[0]) / half_axes[0]) ** 2
        square = square + ((head.y_XY1 - centre[1]) / half_axes[1]) ** 2
        inside |= square + ((head.z_11Z - centre[2]) / half_axes[2]) ** 2 < 1.0
    return inside


def _add_lesions(
    labels_XYZ: NDArray[np.uint8],
    wall_mm: Field,
    head: _Head,
    case: CaseMix,
    mean: float,
    rng: np.random.Generator,
    spacing_mm: Spacing,
) -> None:
    """Turn white matter into lesions, `mean` on average, the likelier the nearer the ventricles."""
    # A lesion is centred where its body fits the slab, and not in the bridge of the callosum.
    margin = min(labels_XYZ.shape[2] // 5, 6)
    inner = np.zeros(labels_XYZ.shape, bool)
    inner[:, :, margin : labels_XYZ.shape[2] - margin] = np.abs(head.x_XY1) > 9.0
    candidates = np.flatnonzero((labels_XYZ == Tissue.WHITE) & (wall_mm < 30.0) & inner)
    if not candidates.size:
        return
    odds = np.cumsum(np.exp(-np.maximum(wall_mm.ravel()[candidates] - 3.0, 0.0) / 9.0))
    for _ in range(rng.poisson(mean)):
        place = candidates[np.searchsorted(odds, rng.uniform(0.0, odds[-1]))]
        centre = np.array(np.unravel_index(place, labels_XYZ.shape))
        size = case.lesion_size_mm * np.exp(rng.normal(0.0, case.lesion_size_spread))
        half_axes = np.clip(size, 4.0, 16.0) / 2 * np.exp(rng.normal(0.0, 0.18, 3))
        _grow_lesion(labels_XYZ, centre, half_axes, rng, spacing_mm)


def _grow_lesion(
    labels_XYZ: NDArray[np.uint8],
    centre: NDArray[np.int64],
    half_axes_mm: NDArray[np.float64],
    rng: np.random.Generator,
    spacing_mm: Spacing,
) -> None:
    """Mark one turned ellipsoid with an uneven edge, in white matter only."""
    reach = np.ceil(1.6 * half_axes_mm.max() / np.array(spacing_mm)).astype(int)
    low = np.maximum(centre - reach, 0)
    high = np.minimum(centre + reach + 1, labels_XYZ.shape)
    box = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    x, y, z = (
        (np.arange(a, b) - c) * mm
        for a, b, c, mm in zip(low, high, centre, spacing_mm, strict=True)
    )
    turn = rng.uniform(0.0, np.pi)
    along = np.cos(turn) * x[:, None, None] + np.sin(turn) * y[:, None]
    across = np.cos(turn) * y[:, None] - np.sin(turn) * x[:, None, None]
    distance = np.sqrt(
        (along / half_axes_mm[0]) ** 2
        + (across / half_axes_mm[1]) ** 2
        + (z / half_axes_mm[2]) ** 2
    )
    edge = smooth_field(rng, distance.shape, spacing_mm, float(half_axes_mm.mean()))
    grown = (distance + 0.13 * edge < 1.0) & (labels_XYZ[box] == Tissue.WHITE)
    labels_XYZ[box][grown] = Tissue.LESION


def make_anatomy(
    case: CaseMix,
    rng: np.random.Generator,
    shape: Shape = GRID_SHAPE,
    spacing_mm: Spacing = GRID_SPACING_MM,
    new_lesions_mean: float | None = None,
) -> Anatomy:
    """Return another patient each time: shape is in voxels, RAS+, the head about 160 x 195 mm.

    new_lesions_mean: mean number of lesions (Poisson) that are there at a second visit alone, the
    patient being otherwise the same; None: there is one visit. A grid smaller than the head cuts it
    off. Equal generators give equal patients.
    Raises ValueError if the grid has fewer than 2 voxels in the plane, or a spacing not above 0.
    """
    for axis, (size, step) in enumerate(zip(shape, spacing_mm, strict=True)):
        in_range(1 if axis == 2 else 2, 1024, **{f"shape[{axis}]": size})
        positive(**{f"spacing_mm[{axis}]": step})
    head = _draw_head(case, rng, shape, spacing_mm)
    outside_mm = (head.radius_XYZ - 1.0) * head.scale_mm
    edges = np.cumsum([_CSF_MM, _SKULL_MM, _SCALP_MM])
    sulci_mm, wall_mm = _sulci_mm(head, rng, spacing_mm), _ventricles_mm(head)
    nuclei = _nuclei(head)

    labels_XYZ = np.full(shape, Tissue.WHITE, np.uint8)
    labels_XYZ[(sulci_mm < _CORTEX_MM) | nuclei] = Tissue.GREY
    # Between the ventricles and the cortex there is always white matter.
    labels_XYZ[(wall_mm < 3.0) & (sulci_mm >= _CORTEX_MM / 2) & ~nuclei] = Tissue.WHITE
    labels_XYZ[(sulci_mm < 0.0) | (wall_mm < 0.0)] = Tissue.CSF
    third = np.abs(head.x_XY1) < 1.4 * head.ventricle
    labels_XYZ[third & (np.abs(head.y_XY1 + 8.0) < 13.0) & (head.z_11Z < -4.0)] = Tissue.CSF
    for edge, tissue in zip(edges, (Tissue.SKULL, Tissue.SCALP, Tissue.AIR), strict=True):
        labels_XYZ[outside_mm > edge] = tissue
    _add_lesions(labels_XYZ, wall_mm, head, case, case.lesions_mean, rng, spacing_mm)
    later_XYZ = None
    if new_lesions_mean is not None:
        later_XYZ = labels_XYZ.copy()
        _add_lesions(later_XYZ, wall_mm, head, case, new_lesions_mean, rng, spacing_mm)
    return Anatomy(
        labels_XYZ=labels_XYZ,
        spacing_mm=spacing_mm,
        age_years=round(head.age_years, 1),
        later_XYZ=later_XYZ,
    )
