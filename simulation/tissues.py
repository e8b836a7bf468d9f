"""The tissues of a head, and what each one is in a magnet. Times are in ms."""

from collections.abc import Mapping
from enum import IntEnum
from typing import NamedTuple


class Tissue(IntEnum):
    """The labels of an anatomy."""

    AIR = 0
    SCALP = 1
    SKULL = 2
    CSF = 3
    GREY = 4
    WHITE = 5
    LESION = 6


class Relaxation(NamedTuple):
    """What the signal equations need of a tissue."""

    t1_ms: float
    """Longitudinal relaxation time."""
    t2_ms: float
    """Transverse relaxation time."""
    t2_star_ms: float
    """Transverse relaxation time of a gradient echo."""
    proton_density: float
    """Share of the signal of pure water, 0 to 1."""


_SILENT = Relaxation(1.0, 1.0, 1.0, 0.0)

RELAXATION: Mapping[float, Mapping[Tissue, Relaxation]] = {
    1.5: {
        Tissue.AIR: _SILENT,
        Tissue.SCALP: Relaxation(350.0, 70.0, 58.0, 1.0),
        Tissue.SKULL: _SILENT,
        Tissue.CSF: Relaxation(4300.0, 329.0, 58.0, 1.0),
        Tissue.GREY: Relaxation(833.0, 83.0, 69.0, 0.86),
        Tissue.WHITE: Relaxation(500.0, 70.0, 61.0, 0.77),
        Tissue.LESION: Relaxation(752.0, 237.0, 204.0, 0.76),
    },
    3.0: {
        Tissue.AIR: _SILENT,
        Tissue.SCALP: Relaxation(382.0, 68.0, 43.0, 1.0),
        Tissue.SKULL: _SILENT,
        Tissue.CSF: Relaxation(4300.0, 500.0, 43.0, 1.0),
        Tissue.GREY: Relaxation(1331.0, 110.0, 51.0, 0.86),
        Tissue.WHITE: Relaxation(832.0, 79.2, 45.0, 0.77),
        Tissue.LESION: Relaxation(1251.0, 237.0, 150.0, 0.76),
    },
}
"""Field strength in tesla -> tissue -> relaxation.

1.5 T: BrainWeb's table (Kwan, Evans, Pike, IEEE TMI 1999; fat, its class MS lesion), but the T1 of
CSF, which BrainWeb has as 2569 ms: 4300 ms at every field (Rooney et al., MRM 2007), so that the
inversion times of real FLAIR protocols null it.
3 T: T1, T2 of grey and white matter from Wansapura et al., JMRI 1999, and T2* of white matter; fat
from de Bazelaire et al., Radiology 2004; T2 of CSF from Piechnik et al., MRM 2009. Nobody's
measurement: the T1 of a lesion (1.5 T value times white matter's 832/500), its T2 (as at 1.5 T),
the other T2* (1.5 T value times white matter's 45/61). Proton densities do not change with field.
"""
