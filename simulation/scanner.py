"""What a magnetic resonance scanner makes of a head: contrast, resolution, bias, noise, gain.

Legend of shape suffixes: X to the patient's right, Y to the front, Z upwards (RAS+). An image is
made in this order: signal equation per tissue, slice averaging, k-space truncation in the plane,
receive bias, Rician noise, gain, and the orientation in which the array is stored.
"""

from dataclasses import dataclass

import numpy as np
from nibabel.orientations import (
    apply_orientation,
    axcodes2ornt,
    inv_ornt_aff,
    ornt_transform,
)
from numpy.typing import NDArray
from scipy import fft

from common.checks import in_range, not_negative, one_of, positive
from simulation.phantom import Anatomy, Field, Shape, Spacing, smooth_field
from simulation.tissues import RELAXATION, Relaxation, Tissue

SEQUENCES = ("spin_echo", "flair", "spoiled_gradient_echo")


@dataclass(frozen=True, kw_only=True)
class ScannerConfig:
    """One scanner with its protocol."""

    name: str
    """Name for reports."""
    field_t: float
    """Field strength in tesla, 1.5 or 3.0: decides the relaxation times."""
    sequence: str
    """spin_echo, flair or spoiled_gradient_echo."""
    te_ms: float
    """Echo time; 0 would be no transverse decay."""
    tr_ms: float
    """Repetition time; very long is full longitudinal recovery. Above te_ms."""
    ti_ms: float | None = None
    """Inversion time of flair, below tr_ms; null with the other sequences."""
    flip_deg: float | None = None
    """Flip angle of spoiled_gradient_echo, above 0 to 90; null with the other sequences."""
    bias_strength: float = 0.2
    """Largest departure of the receive field from 1 over the image; 0: none. BrainWeb's '40 %
    non-uniformity' is 0.2."""
    noise_std: float = 0.03
    """Standard deviation of each receiver channel, as a share of white matter's signal; 0: none."""
    in_plane_mm: float = 1.5
    """Voxel size in the plane that is asked for; the matrix is a whole number, so the voxel's true
    size is the nearest that divides the field of view."""
    slice_mm: float = 5.0
    """Slice thickness, without gaps; rounded to whole slices of the anatomy."""
    gain: float = 1000.0
    """Stored units per unit of signal of pure, fully relaxed water."""
    orientation: str = "RAS"
    """Where the stored axes point, one letter each of R/L, A/P, S/I, in any order."""

    def __post_init__(self) -> None:
        one_of((1.5, 3.0), field_t=self.field_t)
        one_of(SEQUENCES, sequence=self.sequence)
        not_negative(te_ms=self.te_ms, noise_std=self.noise_std)
        in_range(0.0, 0.9, bias_strength=self.bias_strength)
        positive(tr_ms=self.tr_ms, in_plane_mm=self.in_plane_mm, slice_mm=self.slice_mm)
        positive(gain=self.gain)
        if self.te_ms >= self.tr_ms:
            raise ValueError(
                f"te_ms={self.te_ms} is not below tr_ms={self.tr_ms}: the echo would come after "
                "the next pulse; give a shorter te_ms or a longer tr_ms"
            )
        self._check_only_for("flair", "ti_ms", self.ti_ms, self.tr_ms)
        self._check_only_for("spoiled_gradient_echo", "flip_deg", self.flip_deg, 90.0)
        axes = [
            next((k for k, pair in enumerate(("RL", "AP", "SI")) if c in pair), None)
            for c in self.orientation
        ]
        if sorted(axes, key=str) != [0, 1, 2]:
            raise ValueError(
                f"orientation={self.orientation!r} is not an orientation; give one letter each of "
                "R or L, A or P, S or I, for example LPS"
            )

    def _check_only_for(self, sequence: str, name: str, value: float | None, most: float) -> None:
        if self.sequence != sequence and value is not None:
            raise ValueError(
                f"{name}={value} has no effect with sequence={self.sequence}; leave it null or "
                f"choose sequence={sequence}"
            )
        if self.sequence == sequence and (value is None or not 0 < value <= most):
            raise ValueError(
                f"{name}={value} is not allowed with sequence={sequence}; "
                f"give a value above 0, at most {most}"
            )


@dataclass(frozen=True, kw_only=True)
class Acquisition:
    """An image as it is stored, and the lesions on the same grid."""

    image_XYZ: Field
    """Intensities in stored units; the axes point as the scanner's orientation says."""
    mask_XYZ: NDArray[np.uint8]
    """1 where lesion makes at least half of the voxel, else 0."""
    affine: NDArray[np.float64]
    """Voxel index -> mm in the world (RAS+)."""
    spacing_mm: Spacing
    """Voxel size along the stored axes."""


def spin_echo_signal(tissue: Relaxation, te_ms: float, tr_ms: float) -> float:
    """Return PD (1 - exp(-TR/T1)) exp(-TE/T2) (Haacke et al., Magnetic Resonance Imaging, 1999)."""
    recovered = 1.0 - np.exp(-tr_ms / tissue.t1_ms)
    return float(tissue.proton_density * recovered * np.exp(-te_ms / tissue.t2_ms))


def flair_signal(tissue: Relaxation, te_ms: float, tr_ms: float, ti_ms: float) -> float:
    """Return PD |1 - 2 exp(-TI/T1) + exp(-TR/T1)| exp(-TE/T2).

    Inversion recovery with a spin echo, magnitude image (Hajnal et al., JCAT 1992; the recovery
    with finite TR as in Haacke et al., Magnetic Resonance Imaging, 1999).
    """
    recovered = 1.0 - 2.0 * np.exp(-ti_ms / tissue.t1_ms) + np.exp(-tr_ms / tissue.t1_ms)
    return float(tissue.proton_density * abs(recovered) * np.exp(-te_ms / tissue.t2_ms))


def spoiled_gradient_echo_signal(
    tissue: Relaxation, te_ms: float, tr_ms: float, flip_deg: float
) -> float:
    """Return PD sin(a) (1 - E1) / (1 - cos(a) E1) exp(-TE/T2*), E1 = exp(-TR/T1).

    Steady state with ideal spoiling (Ernst and Anderson, Rev. Sci. Instrum. 1966).
    """
    angle, e1 = np.deg2rad(flip_deg), np.exp(-tr_ms / tissue.t1_ms)
    steady = np.sin(angle) * (1.0 - e1) / (1.0 - np.cos(angle) * e1)
    return float(tissue.proton_density * steady * np.exp(-te_ms / tissue.t2_star_ms))


def tissue_signals(scanner: ScannerConfig) -> dict[Tissue, float]:
    """Return each tissue's signal before bias, noise and gain; pure relaxed water would be 1."""
    signals = {}
    for tissue, relaxation in RELAXATION[scanner.field_t].items():
        if scanner.ti_ms is not None:
            signal = flair_signal(relaxation, scanner.te_ms, scanner.tr_ms, scanner.ti_ms)
        elif scanner.flip_deg is not None:
            signal = spoiled_gradient_echo_signal(
                relaxation, scanner.te_ms, scanner.tr_ms, scanner.flip_deg
            )
        else:
            signal = spin_echo_signal(relaxation, scanner.te_ms, scanner.tr_ms)
        signals[tissue] = signal
    return signals


def average_slices(image_XYZ: Field, thickness: int) -> Field:
    """Return slices of `thickness` neighbours' mean along Z; a rest is dropped at both ends.

    Raises ValueError unless 1 <= thickness <= the image's slices.
    """
    depth = image_XYZ.shape[2]
    if not 1 <= thickness <= depth:
        raise ValueError(
            f"a slice cannot be the mean of {thickness} of an image's {depth} slices; "
            f"give a slice_mm that is 1 to {depth} of them"
        )
    count = depth // thickness
    start = (depth - count * thickness) // 2
    used = image_XYZ[:, :, start : start + count * thickness]
    return np.asarray(used.reshape(*used.shape[:2], count, thickness).mean(axis=3), np.float32)


def truncate_kspace(image: Field, kept: int, size: int, axis: int) -> Field:
    """Return the image from the `kept` lowest frequencies along an axis, on `size` samples.

    The first sample stays where it is and the field of view stays the same; the mean does too.
    An even `kept` drops its unpaired frequency, so that the result is real. Keeping all
    frequencies on the same samples returns the image as it is.
    Raises ValueError if more is kept than the image or the result has samples.
    """
    old = image.shape[axis]
    if kept > min(old, size):
        raise ValueError(
            f"{kept} frequencies cannot come from {old} samples or go on {size}; "
            "give a larger in_plane_mm"
        )
    if kept == size == old:
        return image
    spectrum = np.moveaxis(fft.rfft(image, axis=axis), axis, -1)[..., : (kept + 1) // 2]
    short = fft.irfft(spectrum, n=size, axis=-1) * (size / old)
    return np.asarray(np.moveaxis(short, -1, axis), np.float32)


def bias_field(
    shape: Shape, spacing_mm: Spacing, strength: float, rng: np.random.Generator
) -> Field:
    """Return a smooth receive field, 1 plus or minus `strength` at most; reached somewhere."""
    field = smooth_field(rng, shape, spacing_mm, 90.0)
    field -= field.mean()
    return np.asarray(1.0 + strength * field / max(np.abs(field).max(), 1e-6), np.float32)


def add_rician_noise(image: Field, std: float, rng: np.random.Generator) -> Field:
    """Return sqrt((s + n1)^2 + n2^2), n1, n2 normal with `std` (Gudbjartsson, Patz, MRM 1995)."""
    real = rng.standard_normal(image.shape, dtype=np.float32)
    imaginary = rng.standard_normal(image.shape, dtype=np.float32)
    return np.asarray(np.hypot(image + std * real, std * imaginary), np.float32)


def acquire(anatomy: Anatomy, scanner: ScannerConfig, rng: np.random.Generator) -> Acquisition:
    """Return the anatomy as this scanner sees it.

    The lesion mask is the lesions' share of each voxel, through the same slices and the same
    k-space, where it is at least one half.
    Raises ValueError if the scanner is finer than the anatomy, or its slice thicker than it.
    """
    signals = tissue_signals(scanner)
    table = np.array([signals[tissue] for tissue in Tissue], np.float32)
    lesion = anatomy.labels_XYZ == Tissue.LESION
    image_XYZ, affine = _sample(table[anatomy.labels_XYZ], anatomy.spacing_mm, scanner)
    share_XYZ, _ = _sample(lesion.astype(np.float32), anatomy.spacing_mm, scanner)
    spacing_mm = (float(affine[0, 0]), float(affine[1, 1]), float(affine[2, 2]))
    image_XYZ = receive(image_XYZ, spacing_mm, signals[Tissue.WHITE], scanner, rng)

    turn = ornt_transform(axcodes2ornt("RAS"), axcodes2ornt(scanner.orientation))
    stored_mm = tuple(spacing_mm[int(axis)] for axis in np.argsort(turn[:, 0]))
    return Acquisition(
        image_XYZ=np.ascontiguousarray(apply_orientation(image_XYZ, turn)),
        mask_XYZ=np.ascontiguousarray(apply_orientation((share_XYZ >= 0.5).astype(np.uint8), turn)),
        affine=affine @ inv_ornt_aff(turn, image_XYZ.shape),
        spacing_mm=(stored_mm[0], stored_mm[1], stored_mm[2]),
    )


def _sample(
    fine_XYZ: Field, fine_mm: Spacing, scanner: ScannerConfig
) -> tuple[Field, NDArray[np.float64]]:
    """Return the image on the scanner's grid, RAS+, and that grid's affine."""
    thickness = round(scanner.slice_mm / fine_mm[2])
    image_XYZ = average_slices(fine_XYZ, thickness)
    spacing_mm = [*fine_mm[:2], fine_mm[2] * thickness]
    for axis in (0, 1):
        size = fine_XYZ.shape[axis]
        matrix = max(round(size * fine_mm[axis] / scanner.in_plane_mm), 1)
        image_XYZ = truncate_kspace(image_XYZ, matrix, matrix, axis)
        spacing_mm[axis] = size * fine_mm[axis] / matrix
    affine = np.diag([*spacing_mm, 1.0])
    affine[:2, 3] = [-(n - 1) / 2 * mm for n, mm in zip(fine_XYZ.shape[:2], fine_mm, strict=False)]
    depth = fine_XYZ.shape[2]
    first = (depth % thickness) // 2 + (thickness - 1) / 2 - (depth - 1) / 2
    affine[2, 3] = first * fine_mm[2]
    return image_XYZ, affine


def receive(
    image_XYZ: Field,
    spacing_mm: Spacing,
    white: float,
    scanner: ScannerConfig,
    rng: np.random.Generator,
) -> Field:
    """Return the image after the coil's bias, the receiver's noise and the gain."""
    shape = (image_XYZ.shape[0], image_XYZ.shape[1], image_XYZ.shape[2])
    image_XYZ = image_XYZ * bias_field(shape, spacing_mm, scanner.bias_strength, rng)
    image_XYZ = add_rician_noise(image_XYZ, scanner.noise_std * white, rng)
    return np.asarray(scanner.gain * image_XYZ, np.float32)
