"""A model on a site's held-out patients: estimates with intervals; no value of a patient leaves."""

from collections.abc import Callable, Sequence
from itertools import groupby

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from client.cohort import Samples
from common.contract import Estimate
from common.tasks.task import Sums, Task, with_mirrored

RESAMPLES = 1000
BATCH = 32
LEAST_FOR_INTERVAL = 2
"""Patients: of one alone every resample is the same."""


def predict(
    model: nn.Module,
    samples: Samples,
    task: Task,
    device: torch.device,
    on_batch: Callable[[], None] = lambda: None,
) -> Tensor:
    """Return probabilities [N, K, ...] of every sample, on the CPU; on_batch may raise.

    model: a network, or a list of them, whose mean is returned (Lakshminarayanan et al., NeurIPS
    2017, Section 2.4).
    """
    if isinstance(model, nn.ModuleList):
        each = [predict(member, samples, task, device, on_batch) for member in model]
        return torch.stack(each).mean(0)
    model.eval()
    batches = []

    def ask(images: Tensor) -> Tensor:
        return task.activate(task.ask(model, images.to(device))).cpu()

    with torch.inference_mode():
        for images in torch.split(samples.images, BATCH):
            batches.append(with_mirrored(ask(images), ask, images, task.config))
            on_batch()
    return torch.cat(batches)


def evaluate(probabilities: Tensor, samples: Samples, task: Task, seed: int) -> dict[str, Estimate]:
    """Return every metric with its bootstrap 95 % interval; empty where no patient is held out.

    The bootstrap resamples patients (Efron and Tibshirani, 1993, percentile interval).
    """
    rows = patient_rows(probabilities, samples, task)
    return bootstrap(list(rows.values()), task, seed) if rows else {}


def patient_rows(probabilities: Tensor, samples: Samples, task: Task) -> dict[str, Sums]:
    """Return each patient's additive row, by patient.

    Slices of one volume are stacked again first, so that a distance is a distance in the volume.
    """
    records: dict[str, list[Sums]] = {}
    for indices in _images(samples, task.config.dense):
        first = indices[0]
        image, target = probabilities[indices], samples.targets[indices]
        spacing_mm = samples.spacing_mm[first]
        if task.config.dense and len(spacing_mm) == image.ndim - 1:
            image, target = image.movedim(0, -1), target.movedim(0, -1)
        else:
            image, target = image[0], target[0]
        record = task.measure(image, target, spacing_mm)
        records.setdefault(samples.patients[first], []).append(record)
    return {patient: task.patient_sums(records[patient]) for patient in sorted(records)}


def chosen_by(probabilities: Callable[[], Tensor], choosing: Samples, task: Task) -> Task:
    """Return the task as it answers when these patients have chosen how; nobody: as it is.

    probabilities: returns those of the samples.
    """
    if task.answers_by is None or not choosing.num_patients:
        return task
    rows = patient_rows(probabilities(), choosing, task)
    return task.answers_by(task, task.patient_sums(list(rows.values())))


def _images(samples: Samples, dense: bool) -> list[list[int]]:
    """Return the samples of each image: the slices of a volume, or one sample by itself."""
    places = range(len(samples.volumes))
    if not dense:
        return [[place] for place in places]
    return [list(group) for _, group in groupby(places, key=lambda place: samples.volumes[place])]


def bootstrap(rows: Sequence[Sums], task: Task, seed: int) -> dict[str, Estimate]:
    """Return value and percentile interval of every metric over the patients' rows."""
    return {
        name: _estimate(value, drawn, len(rows))
        for name, (value, drawn) in _resampled(rows, task, seed).items()
    }


def _resampled(
    rows: Sequence[Sums], task: Task, seed: int
) -> dict[str, tuple[float, NDArray[np.float64]]]:
    """Return every metric's value, and its values over the resamples of the patients."""
    names = list(rows[0])
    shapes = {name: np.shape(rows[0][name]) for name in names}
    stacked = {
        name: np.stack([np.asarray(row[name], dtype=np.float64).ravel() for row in rows])
        for name in names
    }
    draws = np.random.default_rng(seed).multinomial(
        len(rows), np.full(len(rows), 1 / len(rows)), size=RESAMPLES
    )

    # As floats: of whole numbers NumPy multiplies a matrix many times slower.
    def scored(counts: NDArray[np.float64]) -> dict[str, float]:
        return task.score({n: (counts @ stacked[n]).reshape(shapes[n]) for n in names})

    point = scored(np.ones(len(rows)))
    samples = [scored(counts) for counts in draws.astype(np.float64)]
    drawn = {n: np.array([s[n] for s in samples]) for n in point}
    for mean, parts in task.means.items():
        for part in parts:
            if np.isfinite(point[part]):
                drawn[mean] = np.where(np.isfinite(drawn[part]), drawn[mean], np.nan)
    return {n: (value, drawn[n]) for n, value in point.items()}


def bootstrap_gain(
    ours: Sequence[Sums], others: Sequence[Sums], task: Task, seed: int
) -> dict[str, Estimate]:
    """Return our metrics minus another model's on the same patients, with paired intervals.

    ours, others: the rows of the same patients, in the same order. Each resample has the same
    patients for both (Efron and Tibshirani, 1993, Section 8.3).
    """
    first, second = _resampled(ours, task, seed), _resampled(others, task, seed)
    return {
        name: _estimate(value - second[name][0], drawn - second[name][1], len(ours))
        for name, (value, drawn) in first.items()
    }


def bootstrap_change(
    later: Sequence[Sums], earlier: Sequence[Sums], task: Task, seed: int
) -> dict[str, Estimate]:
    """Return the metrics on some patients minus those on others; the intervals are not paired.

    Each side is drawn by itself (Efron and Tibshirani, 1993, Section 8.3). n: of the later ones.
    """
    first, second = _resampled(later, task, seed), _resampled(earlier, task, seed + 1)
    enough = min(len(later), len(earlier)) >= LEAST_FOR_INTERVAL
    return {
        name: _estimate(value - second[name][0], drawn - second[name][1], len(later), enough)
        for name, (value, drawn) in first.items()
    }


def _estimate(
    value: float, resampled: NDArray[np.float64], n: int, enough: bool | None = None
) -> Estimate:
    if not (n >= LEAST_FOR_INTERVAL if enough is None else enough):
        told = float(value) if np.isfinite(value) else None
        return Estimate(value=told, low=None, high=None, n=n)
    defined = resampled[np.isfinite(resampled)]
    if not np.isfinite(value) or not len(defined):
        return Estimate(value=None, low=None, high=None, n=n)
    low, high = np.percentile(defined, [2.5, 97.5])
    return Estimate(value=float(value), low=float(low), high=float(high), n=n)
