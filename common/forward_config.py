"""The settings of a forward model (common/forward.py). It loads no torch."""

from dataclasses import dataclass

from common.checks import in_range, one_of, positive

_SETTINGS = {
    "low_dose": ("photons",),
    "low_dose_ct": ("photons", "views"),
    "undersampled": ("acceleration", "centre"),
    "downsampled": ("factor",),
}


@dataclass(frozen=True, kw_only=True)
class ForwardConfig:
    """What a poorer acquisition does to an image."""

    name: str
    """low_dose, low_dose_ct, undersampled or downsampled."""
    photons: float | None = None
    """Of low_dose: photons that a voxel of brightness 1 counts; their noise is 1/sqrt(photons). Of
    low_dose_ct: photons of a ray that meets nothing."""
    views: int | None = None
    """Of low_dose_ct: projections over half a turn."""
    acceleration: int | None = None
    """Of undersampled: one of so many lines of k-space is acquired."""
    centre: float | None = None
    """Of undersampled: share of the lines, in the centre of k-space, that are all acquired; at most
    1/acceleration."""
    factor: int | None = None
    """Of downsampled: how many times as long a voxel is along each axis."""

    def __post_init__(self) -> None:
        one_of(_SETTINGS, **{"task.forward.name": self.name})
        for name in ("photons", "views", "acceleration", "centre", "factor"):
            value, wanted = getattr(self, name), name in _SETTINGS[self.name]
            if (value is not None) != wanted:
                needs = " and ".join(_SETTINGS[self.name])
                raise ValueError(
                    f"task.forward.{name}={value} does not go with task.forward.name={self.name}; "
                    f"give {needs} alone"
                )
            if value is not None:
                positive(**{f"task.forward.{name}": value})
        if self.acceleration is not None:
            in_range(2, 64, **{"task.forward.acceleration": self.acceleration})
            in_range(0.0, 1 / self.acceleration, **{"task.forward.centre": self.centre or 0.0})
        if self.factor is not None:
            in_range(2, 16, **{"task.forward.factor": self.factor})

    def check_size(self, size: list[int], name: str) -> None:
        """Raise ValueError unless images of this size can be degraded so."""
        if self.factor is not None and any(n % self.factor for n in size):
            raise ValueError(
                f"{name}={list(size)} is not divided by task.forward.factor={self.factor}; give "
                f"multiples of it, as {[-(-n // self.factor) * self.factor for n in size]}"
            )
