"""Survival: when does it happen? Hazards of intervals in discrete time, ranked by the C-index.

Legend of shapes: B images, K intervals, T time bins, R risk bins. The loss of an image hangs on no
other image, unlike Cox's partial likelihood, so a patient's gradient exists.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from common.checks import one_of, positive
from common.tasks.config import TaskConfig
from common.tasks.losses import OF_TIMES, loss_of
from common.tasks.ranking import nearest_counts, shares
from common.tasks.task import Bounded, Metric, Sums, Task, check_finite

TIME_BINS, RISK_BINS = 32, 256
RISK_LIMIT = 8.0
"""Risks are the logits of an event before the last cut, clipped to +-8, in bins 0.06 wide."""
WIDE_TIMES = (0, 8, 16, 24)
WIDE_RISKS = (0, 64, 96, 112, 128, 144, 160, 192)
"""Where the wide bins begin that noise can cover."""
LARGEST_NLL = 100.0
_TABLES = ("events", "censored")


@dataclass(frozen=True, kw_only=True)
class SurvivalConfig(TaskConfig):
    """Settings of a survival task."""

    cuts: list[float] = field(default_factory=lambda: [1.0, 2.0, 3.0, 4.0, 5.0])
    """Ends of the intervals of time, each above the one before; the first begins at 0. Whoever
    lives longer than the last is free of the event for all that is learned."""
    time_column: str = "time"
    """Column of the manifest: time to the event, or to the last day that it was known not to have
    happened; in the unit of the cuts."""
    event_column: str = "event"
    """Column of the manifest: 1 where the event happened at that time, 0 where nobody knows."""
    truth_column: str | None = None
    """Column with the risk that an invented patient was made with, so that the C-index of the truth
    can be told: a log-hazard from -8 to 8, of which steps below 0.06 are not told apart; null:
    nobody knows it."""
    out_channels: int = 5
    """One logit an interval."""
    headline: str = "c_index"
    """c_index or nll."""

    @property
    def even_answer(self) -> float:
        """The hazard that says nothing."""
        return 0.5

    @property
    def answer_columns(self) -> tuple[str, ...]:
        """Time and event, and the true risk where there is one."""
        truth = () if self.truth_column is None else (self.truth_column,)
        return (self.time_column, self.event_column, *truth)

    def __post_init__(self) -> None:
        super().__post_init__()
        positive(**{f"task.cuts[{place}]": cut for place, cut in enumerate(self.cuts)})
        rising = self.cuts and sorted(set(self.cuts)) == list(self.cuts)
        if not rising or not math.isfinite(self.cuts[-1]):
            raise ValueError(
                f"task.cuts={list(self.cuts)} are no ends of intervals; give one or more times, "
                "each above the one before"
            )
        if len(set(self.answer_columns)) != len(self.answer_columns):
            raise ValueError(
                f"task.time_column={self.time_column}, event_column={self.event_column}, "
                f"truth_column={self.truth_column} name a column twice; give each its own"
            )
        if self.out_channels != len(self.cuts) or self.classes:
            raise ValueError(
                f"task.out_channels={self.out_channels}, task.classes={list(self.classes)} do not "
                f"fit {len(self.cuts)} intervals; give {len(self.cuts)} and []"
            )
        one_of(survival_metrics(self), **{"task.headline": self.headline})
        self.check_loss(OF_TIMES)


def survival_metrics(config: SurvivalConfig) -> dict[str, Metric]:
    """Return the metrics by name."""
    ranked = "chance that of two patients of a site the one with the earlier event "
    metrics = {
        "c_index": Metric(True, "", f"{ranked}has the higher risk (Harrell)."),
        "nll": Metric(
            False, "", "negative log-likelihood of what happened to a patient.", high=LARGEST_NLL
        ),
    }
    if config.truth_column is not None:
        metrics["c_index_truth"] = Metric(True, "", f"{ranked}has the higher true risk.")
    return metrics


def build_survival(config: SurvivalConfig) -> Task:
    """Return the task. Targets are float32: time, event 0 or 1, true risk (nan: not known).

    [B, 3] of a batch, [3] of one image. Sums: `events` and `censored` [T, R], patients by the bin
    of their time and of their risk; `nll` and `patients` [1]; with a true risk also `events_truth`
    and `censored_truth`. Pairs are of one site: the C-index needs the times of both, and no row
    leaves. A patient is one row, the mean over the patient's images.
    """
    known = config.truth_column is not None
    cuts = tuple(config.cuts)
    criterion = loss_of(OF_TIMES, config.loss, config.out_channels)
    cuts_K = torch.tensor(cuts)

    def loss(logits: Tensor, target: Tensor) -> Tensor:
        lived, happened = in_intervals(target, cuts_K)
        return criterion(logits.float(), torch.stack([lived, happened], dim=2))

    return Task(
        config=config,
        metrics=survival_metrics(config),
        loss=loss,
        activate=lambda logits: logits.float().sigmoid(),
        measure=measure,
        patient_sums=lambda records: patient_sums(records, cuts, known),
        score=score,
        # One table of shares: two patients' differ by sqrt(2) at most.
        bounded=Bounded(bounded_row, math.sqrt(2), restored),
    )


def in_intervals(target_B3: Tensor, cuts_K: Tensor) -> tuple[Tensor, Tensor]:
    """Return in which intervals a patient was free of the event, and in which it happened, [B, K].

    Who is censored counts as free in an interval of which half or more was lived (Gensheimer and
    Narasimhan, PeerJ 2019, Eq. 3).
    """
    time_B1, event_B1 = target_B3[:, :1], target_B3[:, 1:2]
    ends = cuts_K.to(target_B3)
    begins = torch.cat([torch.zeros_like(ends[:1]), ends[:-1]])
    free = torch.where(event_B1 > 0, time_B1 > ends, time_B1 >= (begins + ends) / 2)
    first = torch.where(ends == ends[0], time_B1 <= ends, (begins < time_B1) & (time_B1 <= ends))
    return free.float(), ((event_B1 > 0) & first).float()


def measure(probabilities: Tensor, target: Tensor, spacing_mm: Sequence[float]) -> Sums:
    """Return the record of one image: the hazards [K], and what happened [3].

    Raises:
        ValueError: a hazard is not finite, or the shapes do not fit.
    """
    del spacing_mm
    check_finite(probabilities)
    if probabilities.ndim != 1 or tuple(target.shape) != (3,):
        raise ValueError(
            f"hazards of shape {tuple(probabilities.shape)} and a target of shape "
            f"{tuple(target.shape)} are not one image's; give [K] and [3]"
        )
    return {"hazards": probabilities.double().numpy(), "happened": target.double().numpy()}


def patient_sums(records: Sequence[Sums], cuts: Sequence[float], known: bool) -> Sums:
    """Return the sums of one patient, of the mean over the patient's images.

    Raises:
        ValueError: no records.
    """
    if not records:
        raise ValueError("a patient without images cannot be scored; leave the patient out")
    hazards, happened = (
        np.mean([record[name] for record in records], axis=0) for name in ("hazards", "happened")
    )
    time, last = float(happened[0]), cuts[-1]
    # Closed above, as the intervals of the loss; who lives longer than the last is free there too.
    place = min(max(math.ceil(time / last * TIME_BINS) - 1, 0), TIME_BINS)
    event = bool(happened[1] > 0) and time <= last
    safe = np.clip(hazards, 1e-12, 1 - 1e-12)
    free = -np.log1p(-safe)
    cumulative = max(float(free.sum()), 1e-9)
    # The logit, log(expm1(cumulative)), whose exponential is too large after many intervals.
    sums = _row(place, event, cumulative + math.log(-math.expm1(-cumulative)), "")
    if known:
        sums |= _row(place, event, float(happened[2]), "_truth")
    target = torch.tensor(happened, dtype=torch.float32)[None]
    lived, at = (part.double().numpy()[0] for part in in_intervals(target, torch.tensor(cuts)))
    nll = float((lived * free - at * np.log(safe)).sum())
    return {**sums, "nll": np.array([min(nll, LARGEST_NLL)]), "patients": np.ones(1)}


def _row(time_bin: int, event: bool, risk: float, suffix: str) -> dict[str, NDArray[np.float64]]:
    tables = {f"{name}{suffix}": np.zeros((TIME_BINS + 1, RISK_BINS)) for name in _TABLES}
    if math.isfinite(risk):
        share = (min(max(risk, -RISK_LIMIT), RISK_LIMIT) + RISK_LIMIT) / (2 * RISK_LIMIT)
        name = f"{_TABLES[0] if event else _TABLES[1]}{suffix}"
        tables[name][time_bin, min(int(share * RISK_BINS), RISK_BINS - 1)] = 1
    return tables


def score(sums: Sums) -> dict[str, float]:
    """Return the metrics of the patients that the sums are over."""
    values = {"c_index": concordance(sums["events"], sums["censored"])}
    if "nll" in sums:
        patients = float(sums["patients"].sum())
        values["nll"] = float(sums["nll"].sum()) / patients if patients else math.nan
    if "events_truth" in sums:
        values["c_index_truth"] = concordance(sums["events_truth"], sums["censored_truth"])
    return values


def concordance(events_TR: NDArray[np.float64], censored_TR: NDArray[np.float64]) -> float:
    """Return Harrell's C: of pairs whose first event is known, the share with the higher risk.

    Harrell et al., JAMA 1982; a tie in risk counts half, and so do risks of one bin. Events of one
    time bin are no pair, and who is censored in the bin of an event counts as later. nan without a
    pair.
    """
    everybody = events_TR + censored_TR
    later = np.cumsum(everybody[::-1], axis=0)[::-1] - events_TR
    below = np.cumsum(later, axis=1) - later
    pairs = float((events_TR.sum(axis=1) * later.sum(axis=1)).sum())
    return float((events_TR * (below + later / 2)).sum() / pairs) if pairs else math.nan


def bounded_row(sums: Sums) -> Sums:
    """Return the patient's place among few times and risks, with and without event, as shares."""
    tables = np.stack([sums[name] for name in _TABLES])
    wide = np.add.reduceat(np.add.reduceat(tables, WIDE_TIMES, axis=1), WIDE_RISKS, axis=2)
    return {"table": shares(wide)}


def restored(sums: Sums, patients: int) -> Sums:
    """Return the possible totals that are nearest to those with noise."""
    events, censored = nearest_counts(sums["table"], patients)
    return {"events": events, "censored": censored}
