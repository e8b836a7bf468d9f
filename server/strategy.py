"""The one Strategy: sampling, combiner and server optimiser; an algorithm is a YAML file."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from common.contract import Estimate
from common.state import Arrays, State
from common.study import StrategyConfig
from common.tasks.task import Metric
from server.aggregation import weight_of, weighted_mean
from server.optimizers import Moments, server_step
from server.sampling import cohort_of_round

UNTOLD, LEAST = 0.5, 1e-3
"""Distances of a site that tells no metric, and of one whose model could not be better."""


@dataclass(frozen=True)
class Strategy:
    """Sampling, combiner and server optimiser of a study."""

    config: StrategyConfig
    seed: int
    trained: frozenset[str]
    """Names of the parameters; all other tensors of the state are statistics or counters."""

    def cohort(self, sites: Sequence[str], round_number: int) -> list[str]:
        """Return the sites asked to train in the round."""
        return cohort_of_round(sites, self.config.fraction, self.seed, round_number)

    def weight(self, patients: int, estimate: Estimate | None, metric: Metric) -> float:
        """Return what a site's update counts for.

        estimate: the headline metric of the incoming model at the site. With fairness_q the weight
        is p_k F_k^q, the gradient's of sum_k p_k / (q + 1) F_k^(q + 1) (Li et al., ICLR 2020,
        Eq. 2), with the metric's distance from its best value, over its range, in the place of F_k.
        """
        base = weight_of(patients, self.config.weight_by)
        q = self.config.fairness_q
        return base if q is None else base * _distance(estimate, metric) ** q

    def combine(self, updates: Iterator[tuple[Arrays, float]]) -> dict[str, Tensor] | None:
        """Return the combined update, float64, from a site's weights and what they count for.

        None where no site handed one in.
        """
        return weighted_mean(updates)

    def step(
        self, model: State, combined: dict[str, Tensor], moments: Moments
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Return the next model and the next moments of the optimiser; `combined` is used up."""
        return server_step(model, combined, moments, self.config.server_optimizer, self.trained)

    def summed(self, sums: State, model: State, rounds_left: int) -> dict[str, Tensor]:
        """Return the float64 sums of the models of the rounds that are averaged, this one added."""
        if rounds_left >= (self.config.averaged_rounds or 0):
            return {}
        return {name: model[name].to(torch.float64) + sums.get(name, 0.0) for name in self.trained}

    def final(self, model: State, sums: State, rounds: int) -> dict[str, Tensor]:
        """Return the model that the study hands out: the mean of the last rounds' parameters.

        Polyak and Juditsky (SIAM J. Control Optim. 1992), over rounds; with DP-SGD it takes away
        noise and costs no privacy (De et al., 2022, Section 3.3). Statistics and counters are
        the last model's.
        """
        count = min(self.config.averaged_rounds or 0, rounds)
        means = {n: (total / count).to(model[n].dtype) for n, total in sums.items()}
        return {**model, **means}


def _distance(estimate: Estimate | None, metric: Metric) -> float:
    """Return how far a metric is from its best value, from LEAST to 1; UNTOLD if it is not told."""
    if estimate is None or estimate.value is None:
        return UNTOLD
    best = metric.high if metric.higher_is_better else metric.low
    return max(abs(best - estimate.value) / (metric.high - metric.low), LEAST)
