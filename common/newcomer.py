"""What a hospital that has not joined a study may expect of its model, from its images alone.

A straight line through what the study's sites show: by how much the model is worse at each than at
the others, over how far its images are from theirs (ordinary least squares). All that it takes of
the sites stands in result.json, so a hospital can ask it at home, and nothing leaves.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from scipy import stats

from common.contract import Profile
from common.profile import APPEARANCE, BLOCK_LIMIT

LEAST_SITES = 3
"""Sites that a line with an interval needs."""
COVERAGE = 0.95
LEAST_SPREAD = 1e-6
"""Of the distances: below it they differ by rounding."""
MEASURE = APPEARANCE
"""The distance that drops are predicted from: in simulation it orders scanners best. It is of the
images, whatever model looks."""


class Predicted(NamedTuple):
    """An expected drop with its 95 % prediction interval."""

    drop: float
    low: float
    high: float


class Shown(NamedTuple):
    """What one site of a study shows."""

    distance: float
    """From the patients of all others together."""
    drop: float
    """By how much the model is worse there than the mean of the others."""


class Expected(NamedTuple):
    """What a hospital may expect."""

    distance: float
    """From the patients of all sites together."""
    nearest: float
    """The least distance of a site from the others."""
    furthest: float
    predicted: Predicted
    mean: float
    """Of the metric over the sites, against which the drop is."""

    @property
    def beyond(self) -> bool:
        """Whether the hospital is further away than any site: what a line says there is a guess."""
        return self.distance > self.furthest


@dataclass(frozen=True, kw_only=True)
class Joined:
    """The sites of a study, as a hospital is held against them that has not joined."""

    everybody: Profile
    """The images of all their patients together; it has the part MEASURE."""
    sites: Mapping[str, Shown]
    mean: float
    """Of the study's metric over the sites."""

    def told(self) -> dict[str, Any]:
        """Return it as result.json has it."""
        return {
            "measure": MEASURE,
            "patients": self.everybody.patients,
            "noise_std": self.everybody.noise_std,
            "images": self.everybody.parts[MEASURE],
            "mean": self.mean,
            "sites": {site: shown._asdict() for site, shown in sorted(self.sites.items())},
        }

    def expected(self, own: Profile) -> Expected:
        """Return what the hospital whose profile this is may expect.

        Raises:
            ValueError: the sites give no line, or its images were made alike in another way.
        """
        theirs = len(self.everybody.parts[MEASURE])
        if len(own.parts[MEASURE]) != theirs:
            raise ValueError(
                f"the sites told of their images in {theirs} blocks, these are in "
                f"{len(own.parts[MEASURE])}; prepare them as the study does"
            )
        distance = far(own, self.everybody)
        away = [shown.distance for shown in self.sites.values()]
        drops = [shown.drop for shown in self.sites.values()]
        line = predicted_drop(away, drops, distance)
        return Expected(distance, min(away), max(away), line, self.mean)


def joined_told(told: Mapping[str, Any]) -> Joined:
    """Return the sites that stand in a result.json.

    Raises:
        ValueError: they have another form.
    """
    try:
        everybody = Profile(
            patients=int(told["patients"]),
            noise_std=float(told["noise_std"]),
            parts={str(told["measure"]): [float(number) for number in told["images"]]},
        )
        sites = {
            site: Shown(float(of["distance"]), float(of["drop"]))
            for site, of in told["sites"].items()
        }
        mean = float(told["mean"])
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"shift.newcomer has another form than this version writes: {error}"
        ) from error
    if MEASURE not in everybody.parts:
        raise ValueError(f"shift.newcomer.measure={told['measure']} is not {MEASURE}")
    return Joined(everybody=everybody, sites=sites, mean=mean)


def predicted_drop(distances: Sequence[float], drops: Sequence[float], new: float) -> Predicted:
    """Return the drop to expect at a new distance.

    The prediction interval of simple linear regression (Draper and Smith, Applied Regression
    Analysis, 1998, Section 3.1).

    Raises:
        ValueError: fewer than three sites, or all at one distance.
    """
    x, y = np.asarray(distances, dtype=np.float64), np.asarray(drops, dtype=np.float64)
    if len(x) < LEAST_SITES or np.ptp(x) <= LEAST_SPREAD * max(float(np.abs(x).max()), 1.0):
        raise ValueError(f"{len(x)} sites at {len(set(x.tolist()))} distances give no line")
    centre, spread = float(x.mean()), float(np.sum((x - x.mean()) ** 2))
    slope = float(np.sum((x - centre) * (y - y.mean()))) / spread
    value = float(y.mean()) + slope * (new - centre)
    residual = y - y.mean() - slope * (x - centre)
    free = len(x) - 2
    error = np.sqrt(np.sum(residual**2) / free * (1 + 1 / len(x) + (new - centre) ** 2 / spread))
    half = float(stats.t.ppf((1 + COVERAGE) / 2, free) * error)
    return Predicted(value, value - half, value + half)


def far(site: Profile, others: Profile) -> float:
    """Return how far a site's images are from those of others together, by MEASURE."""
    return BLOCK_LIMIT * apart(site, others, MEASURE)


def apart(a: Profile, b: Profile, part: str) -> float:
    """Return the Euclidean distance of one part, less what noise adds to its square on average."""
    difference = np.asarray(a.parts[part]) - np.asarray(b.parts[part])
    square = float(np.sum(difference**2))
    return root_of(square - len(difference) * (a.noise_std**2 + b.noise_std**2))


def root_of(square: float) -> float:
    """Return the root of a square from which noise was subtracted, 0 of a negative one."""
    return float(np.sqrt(max(square, 0.0)))
