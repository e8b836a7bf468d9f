"""Whether an image looks like those of a study's sites to its model: the federation's domain.

What the sites told of their patients' features (common/profile.py), all of them together, is a mean
and a covariance; an image is as far away as its features are. F: FEATURE_NUMBERS.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import f as f_distribution

from common.contract import Profile
from common.profile import FEATURE_NUMBERS, MOMENTS

Vector = NDArray[np.float64]
INSIDE_SHARE = 0.99
"""Share of new patients of the sites that are inside, were their features normally distributed."""
LEAST_PATIENTS = 2 * FEATURE_NUMBERS
"""From fewer the spread of the features is hardly known, and everything would be inside."""


def moments_of(profile: Profile) -> Vector:
    """Return [1 + F, 1 + F]: the means of 1, of the features, and of their products."""
    moments = 2 * np.asarray(profile.parts[MOMENTS], dtype=np.float64)
    square = moments.reshape(1 + FEATURE_NUMBERS, 1 + FEATURE_NUMBERS)
    symmetric: Vector = (square + square.T) / 2
    return symmetric


def normal_of(profile: Profile) -> tuple[Vector, Vector]:
    """Return mean and covariance of the features; what noise made impossible is put right."""
    moments = moments_of(profile)
    mean_F = moments[0, 1:]
    values, vectors = np.linalg.eigh(moments[1:, 1:] - np.outer(mean_F, mean_F))
    return mean_F, (vectors * np.maximum(values, 0.0)) @ vectors.T


@dataclass(frozen=True, kw_only=True)
class Domain:
    """How the images of all sites of a study look to its final model."""

    patients: int
    noise_std: float
    """Of the noise on each number that this was made of; 0 without differential privacy."""
    mean_F: Vector
    covariance_FF: Vector

    @property
    def blur(self) -> float:
        """How far noise moves a variance: the spectral norm of a symmetric matrix of it.

        2 sigma sqrt(F) (Wigner's semicircle, Annals of Math. 1958), and a moment has twice the
        noise of the number that was told.
        """
        return 4 * self.noise_std * math.sqrt(FEATURE_NUMBERS) / math.sqrt(2)

    @property
    def unknown(self) -> str | None:
        """Why this tells nothing of an image; None where it does."""
        if self.patients < LEAST_PATIENTS:
            return (
                f"the sites told of {self.patients} patients, and how their images look is known "
                f"from {LEAST_PATIENTS} on"
            )
        spread = float(np.trace(self.covariance_FF)) / FEATURE_NUMBERS
        if self.blur >= spread:
            return "the noise of privacy hides how the sites' images look"
        return None

    def distance(self, features_F: Vector) -> float:
        """Return the Mahalanobis distance over its limit: above 1 an image is outside.

        The limit is the quantile of INSIDE_SHARE of one more patient's distance (Hotelling, Annals
        of Math. Statistics 1931), as mean and covariance are only those of N patients:
        F (N + 1) / (N - F) times that of Fisher's F with F and N - F degrees of freedom. What noise
        may have taken from a variance is added to it, so that noise calls no image strange.
        """
        away = features_F - self.mean_F
        known = self.covariance_FF + max(self.blur, 1e-9) * np.eye(FEATURE_NUMBERS)
        square = float(away @ np.linalg.solve(known, away))
        more = self.patients - FEATURE_NUMBERS
        quantile = float(f_distribution.ppf(INSIDE_SHARE, FEATURE_NUMBERS, more))
        return math.sqrt(square / (FEATURE_NUMBERS * (self.patients + 1) / more * quantile))

    def told(self) -> dict[str, Any]:
        """Return it as result.json has it."""
        return {
            "patients": self.patients,
            "noise_std": self.noise_std,
            "mean": self.mean_F.tolist(),
            "covariance": self.covariance_FF.tolist(),
        }


def domain_of(everybody: Profile) -> Domain:
    """Return the domain of the patients whose profile this is."""
    mean_F, covariance_FF = normal_of(everybody)
    return Domain(
        patients=everybody.patients,
        noise_std=everybody.noise_std,
        mean_F=mean_F,
        covariance_FF=covariance_FF,
    )


def domain_told(told: Mapping[str, Any]) -> Domain:
    """Return the domain that stands in a result.json.

    Raises:
        ValueError: it has another form.
    """
    try:
        mean_F = np.asarray(told["mean"], dtype=np.float64)
        covariance_FF = np.asarray(told["covariance"], dtype=np.float64)
        patients, noise_std = int(told["patients"]), float(told["noise_std"])
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"shift.domain has another form than this version writes: {error}") from (
            error
        )
    if mean_F.shape != (FEATURE_NUMBERS,) or covariance_FF.shape != (FEATURE_NUMBERS,) * 2:
        raise ValueError(f"shift.domain is of {mean_F.shape} features, not of {FEATURE_NUMBERS}")
    return Domain(
        patients=patients, noise_std=noise_std, mean_F=mean_F, covariance_FF=covariance_FF
    )
