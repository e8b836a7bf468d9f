"""A scanner laid over a real image: an intensity model, for real data in virtual hospitals.

Legend of shape suffixes: X, Y, Z as the image is stored.
"""

import numpy as np
from scipy import ndimage

from simulation.phantom import Field, Spacing
from simulation.scanner import ScannerConfig, receive, tissue_signals, truncate_kspace
from simulation.tissues import Tissue


def overlay(
    image_XYZ: Field, spacing_mm: Spacing, scanner: ScannerConfig, rng: np.random.Generator
) -> Field:
    """Return a real T1-like image changed so that it differs as this scanner's images differ.

    A stand-in, not a simulation: a real image has no tissue maps, so its dark, middle and bright
    intensities (10th, 50th and 90th percentile of what is not air) are taken for CSF, grey and
    white matter and moved to those tissues' signals, straight lines between. Two tissues that
    were equally bright stay equal, a lesion is not known, the old scanner's bias and noise remain
    below the new ones. Then blur in the plane and across slices, bias, noise and gain as in
    `simulation.scanner.acquire`. The grid stays, so masks stay true; the orientation is the file's
    own, and X and Y count as the plane. Where the image is already coarser than the scanner,
    nothing is blurred.

    Raises ValueError if the image is not 3-D, or not finite.
    """
    if image_XYZ.ndim != 3 or not np.isfinite(image_XYZ).all():
        raise ValueError(
            f"an image of shape {image_XYZ.shape} cannot be overlaid; give a 3-D image whose "
            "values are all finite"
        )
    signals = tissue_signals(scanner)
    changed_XYZ = _recontrast(np.asarray(image_XYZ, np.float32), signals)
    thickness = round(scanner.slice_mm / spacing_mm[2])
    if thickness > 1:
        changed_XYZ = ndimage.uniform_filter1d(changed_XYZ, thickness, axis=2, mode="nearest")
    for axis in (0, 1):
        size = changed_XYZ.shape[axis]
        matrix = max(round(size * spacing_mm[axis] / scanner.in_plane_mm), 1)
        changed_XYZ = truncate_kspace(changed_XYZ, min(matrix, size), size, axis)
    return receive(changed_XYZ, spacing_mm, signals[Tissue.WHITE], scanner, rng)


def _recontrast(image_XYZ: Field, signals: dict[Tissue, float]) -> Field:
    """Return the image with its intensities moved to the signals of air, CSF, grey and white."""
    low, high = float(image_XYZ.min()), float(image_XYZ.max())
    body = image_XYZ[image_XYZ > low + 0.05 * (high - low)]
    if not body.size:
        return np.full_like(image_XYZ, signals[Tissue.AIR])
    dark, middle, bright = np.percentile(body, [10, 50, 90])
    csf, grey, white = (signals[t] for t in (Tissue.CSF, Tissue.GREY, Tissue.WHITE))
    # Beyond white matter the last line goes on, so that the brightest tenth keeps its detail.
    beyond = white + (white - grey) * (high - bright) / max(bright - middle, 1e-6 * (high - low))
    levels = [low, dark, middle, bright, high]
    moved = np.interp(image_XYZ, levels, [0.0, csf, grey, white, max(beyond, 0.0)])
    return np.asarray(moved, np.float32)
