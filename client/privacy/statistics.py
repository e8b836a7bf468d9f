"""Metrics that tell almost nothing of any one patient: the Gaussian mechanism on bounded sums.

Each held-out patient adds one row of bounded length to a total; the total is noised, brought back
to what is possible, and scored. Whatever is computed from the noised total costs no more privacy
(post-processing), so all metrics together are one release.

The number of patients is public. The site tells it before the first round, and reports say it
beside every metric; noise on it here would hide nothing and blur every mean. What is protected is
all else about a patient: two data sets are neighbours if one patient's images and labels are
others, and then the totals differ by at most the sensitivity.
"""

from collections.abc import Sequence

import numpy as np
import torch

from common.checks import positive
from common.contract import Estimate
from common.tasks.task import Sums, Task


def noised_estimates(
    rows: Sequence[Sums], task: Task, noise_multiplier: float, noise: torch.Generator
) -> dict[str, Estimate]:
    """Return the metrics that stand on the noised sums, without intervals.

    Dwork and Roth, 2014, Appendix A: Gaussian noise of standard deviation noise_multiplier x
    sensitivity on every entry. It costs common.accounting.gaussian_release(noise_multiplier), which
    is to be charged before, once a release.

    rows: each patient's sums (client/evaluation.py, patient_rows), one or more patients.
    noise: secret, and started anew for each release: who knows its start can subtract the noise,
    and the same noise on two totals tells their difference.

    Raises:
        ValueError: no rows, or a noise multiplier that is not above 0.
    """
    positive(noise_multiplier=noise_multiplier)
    if not rows:
        raise ValueError("no patient is held out, so there is nothing to tell; do not ask for it")
    std = noise_multiplier * task.bounded.sensitivity
    total = noised(bounded_total(rows, task), std, noise)
    scored = task.score(task.bounded.restore(total, len(rows)))
    return {name: _estimate(value, len(rows)) for name, value in scored.items()}


def bounded_total(rows: Sequence[Sums], task: Task) -> Sums:
    """Return the sum of the patients' bounded rows; its sensitivity is task.bounded.sensitivity."""
    bounded = [task.bounded.row(row) for row in rows]
    return {name: np.sum([row[name] for row in bounded], axis=0) for name in bounded[0]}


def noised(total: Sums, std: float, noise: torch.Generator) -> Sums:
    """Return the total with independent Gaussian noise of standard deviation std on every entry."""

    def of(shape: tuple[int, ...]) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
        drawn = torch.randn(shape, generator=noise, dtype=torch.float64, device=noise.device)
        return np.asarray(drawn.cpu().numpy(), dtype=np.float64)

    return {name: total[name] + std * of(total[name].shape) for name in sorted(total)}


def told_apart(probabilities: torch.Tensor, task: Task) -> torch.Tensor:
    """Return probabilities [N, K, ...] in which an image without finite ones has even ones.

    Weights chosen to overflow on some patients' images alone would else turn the answer into an
    error, which would tell without noise that there are such patients.
    """
    finite = probabilities.flatten(1).isfinite().all(1)
    even = torch.full_like(probabilities, task.config.even_answer)
    return torch.where(finite.view(-1, *[1] * (probabilities.ndim - 1)), probabilities, even)


def _estimate(value: float, patients: int) -> Estimate:
    defined = value if np.isfinite(value) else None
    return Estimate(value=defined, low=None, high=None, n=patients)
