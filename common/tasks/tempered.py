"""Temperature: a classification's answers made as sure as they are right, by one number.

Guo et al., ICML 2017, Sec. 4.2. The sites tell the likelihood of their held-out patients' classes
at several temperatures as metrics, which add up over patients and pass the gate as all others do;
the server picks the best. Legend of shapes: B images, K classes, G temperatures.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from common.tasks.task import Metric, Sums, Task

PREFIX = "nll_at_"
LARGEST_NLL = 100.0
TEMPERATURE_RANGE = (0.01, 100.0)
MOST_TEMPERATURES = 16


def metric_of(temperature: float) -> str:
    """Return the name of the metric at a temperature, which is part of a name: 1.5 is 1p5."""
    return f"{PREFIX}{temperature:g}".replace(".", "p")


def tempered(probabilities_BK: Tensor, temperature: float) -> Tensor:
    """Return softmax(logits / T) from softmax(logits)."""
    return (probabilities_BK.clamp(min=1e-30).log() / temperature).softmax(dim=-1)


def told_at(task: Task, temperatures: Sequence[float], already: float = 1.0) -> Task:
    """Return the task that also tells the negative log-likelihood at these temperatures.

    already: the temperature that the task's own answers have.
    Sums: `tempered` [G], the mean over a patient's images; `tempered_patients`, how many they are.
    Noise on metrics leaves nothing of them, so under it there are none.
    """
    names = [metric_of(temperature) for temperature in temperatures]

    def measure(probabilities: Tensor, target: Tensor, spacing_mm: Sequence[float]) -> Sums:
        record = task.measure(probabilities, target, spacing_mm)
        at = [tempered(probabilities.cpu().double(), t / already) for t in temperatures]
        found = -torch.stack([p[int(target)] for p in at]).clamp(min=1e-30).log()
        return {**record, "tempered": found.clamp(max=LARGEST_NLL).numpy()}

    def patient_sums(records: Sequence[Sums]) -> Sums:
        mean = np.mean([record["tempered"] for record in records], axis=0)
        return {**task.patient_sums(records), "tempered": mean, "tempered_patients": np.ones(1)}

    def score(sums: Sums) -> dict[str, float]:
        values = task.score(sums)
        if "tempered" not in sums:
            return values
        patients = float(sums["tempered_patients"].sum()) or float("nan")
        likelihoods = (sums["tempered"] / patients).tolist()
        return {**values, **dict(zip(names, likelihoods, strict=True))}

    return replace(
        task,
        metrics={**task.metrics, **temperature_metrics(temperatures)},
        measure=measure,
        patient_sums=patient_sums,
        score=score,
    )


def temperature_metrics(temperatures: Sequence[float]) -> dict[str, Metric]:
    """Return the metrics by name."""
    return {
        metric_of(t): Metric(
            False, "", f"negative log-likelihood at the temperature {t:g}.", high=LARGEST_NLL
        )
        for t in temperatures
    }


def best_temperature(
    told: Mapping[str, Mapping[str, tuple[float, int]]], temperatures: Sequence[float]
) -> tuple[float, dict[str, float]] | None:
    """Return the temperature that is best for the patients of all sites, and the mean at each.

    told: by site and metric the mean, and over how many patients it is; their products add up to
    what one would have found with all patients in one place. None where no site told of it.
    """
    means: dict[str, float] = {}
    for temperature in temperatures:
        cells = [of[name] for of in told.values() if (name := metric_of(temperature)) in of]
        patients = sum(count for _, count in cells)
        if patients:
            means[f"{temperature:g}"] = sum(value * count for value, count in cells) / patients
    return (float(min(means, key=means.__getitem__)), means) if means else None
