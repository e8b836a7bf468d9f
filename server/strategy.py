"""The one Strategy: sampling, combiner and server optimiser; an algorithm is a YAML file."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor

from common.contract import Estimate
from common.state import Arrays, State
from common.strategy_config import StrategyConfig
from common.tasks.task import Metric
from server.aggregation import weight_of, weighted_mean
from server.agnostic import ascended
from server.generalisation import adjusted, step_of
from server.optimizers import Moments, server_step
from server.records import RoundRecord
from server.robust import by_coordinate, median, nearest, trimmed_mean
from server.sampling import cohort_of_round

UNTOLD, LEAST = 0.5, 1e-3
"""Distances of a site that tells no metric, and of one whose model could not be better."""

Headline = tuple[str, Metric]
"""The metric that the sites are weighted by, and its name."""


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

    def shares(
        self,
        patients: Mapping[str, int],
        rounds: Sequence[RoundRecord],
        of: int,
        headline: Headline,
    ) -> dict[str, float]:
        """Return each site's share with generalisation_step or agnostic_step, after these rounds.

        patients: of training, by site. of: the study's rounds. The shares are moved after each
        round by how bad the incoming model was (agnostic_step), or how much worse than the update
        before it, with the metric in the place of the loss: of held-out patients, so their figures
        are no test of the model any more. They serve from the next round on: a round's updates are
        summed as they come, so its own metrics come too late for it. Empty where the study does not
        ask.
        """
        first, climb = self.config.generalisation_step, self.config.agnostic_step
        if first is None and climb is None:
            return {}
        bases = {s: weight_of(count, self.config.weight_by) for s, count in patients.items()}
        shares = adjusted(bases, {}, 0.0)
        if climb is not None:
            for record in rounds:
                shares = ascended(shares, losses_of(record, headline), climb)
            return shares
        assert first is not None
        for earlier, later in pairwise(rounds):
            step = step_of(first, later.round, of)
            shares = adjusted(shares, gaps_of(earlier, later, headline), step)
        return shares

    def weight(
        self, patients: int, estimate: Estimate | None, metric: Metric, share: float | None = None
    ) -> float:
        """Return what a site's update counts for: its patients, or its share where it has one.

        estimate: the headline metric of the incoming model at the site. With fairness_q the weight
        is p_k F_k^q, the gradient's of sum_k p_k / (q + 1) F_k^(q + 1) (Li et al., ICLR 2020,
        Eq. 2), with the metric's distance from its best value, over its range, in the place of F_k.
        """
        base = weight_of(patients, self.config.weight_by) if share is None else share
        q = self.config.fairness_q
        return base if q is None else base * _distance(estimate, metric) ** q

    def combine(
        self, updates: Iterator[tuple[Arrays, float]], folder: Path
    ) -> dict[str, Tensor] | None:
        """Return the combined update, float64, from a site's weights and what they count for.

        None where none was handed in, or fewer than a robust way takes. folder: where updates may
        lie meanwhile.
        """
        config = self.config
        if config.faulty is None:
            return weighted_mean(updates)
        alone = (update for update, _ in updates)
        if config.combine == "krum":
            return nearest(alone, config.faulty, config.quorum, folder)
        cut = partial(trimmed_mean, faulty=config.faulty)
        rule = median if config.combine == "median" else cut
        return by_coordinate(alone, rule, config.quorum, folder)

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


def losses_of(record: RoundRecord, headline: Headline) -> dict[str, float]:
    """Return by site how far the round's incoming model was from the best, where it was told."""
    name, metric = headline
    told = {site: part.before.get(name) for site, part in record.sites.items()}
    known = {s: of for s, of in told.items() if of is not None and of.value is not None}
    return {site: _distance(of, metric) for site, of in known.items()}


def gaps_of(
    earlier: RoundRecord, later: RoundRecord, headline: Headline
) -> dict[str, float | None]:
    """Return by site how much worse the model that came into `later` is than the update before."""
    name, metric = headline
    gaps: dict[str, float | None] = {}
    for site, part in later.sites.items():
        own = earlier.sites[site].after.get(name) if site in earlier.sites else None
        ours = part.before.get(name)
        gaps[site] = None
        if own is not None and ours is not None and None not in (own.value, ours.value):
            worse = own.value - ours.value  # type: ignore[operator]
            gaps[site] = worse if metric.higher_is_better else -worse
    return gaps


def _distance(estimate: Estimate | None, metric: Metric) -> float:
    """Return how far a metric is from its best value, from LEAST to 1; UNTOLD if it is not told."""
    if estimate is None or estimate.value is None:
        return UNTOLD
    best = metric.high if metric.higher_is_better else metric.low
    return max(abs(best - estimate.value) / (metric.high - metric.low), LEAST)
