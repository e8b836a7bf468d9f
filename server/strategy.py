"""The one Strategy: sampling, combiner and server optimiser; an algorithm is a YAML file."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from common.state import Arrays, State
from common.study import StrategyConfig
from server.aggregation import weight_of, weighted_mean
from server.optimizers import Moments, server_step
from server.sampling import cohort_of_round


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

    def combine(self, updates: Iterator[tuple[Arrays, int]]) -> dict[str, Tensor] | None:
        """Return the combined update, float64, from weights and training patients a site.

        None where no site handed one in.
        """
        weight_by = self.config.weight_by
        return weighted_mean((arrays, weight_of(n, weight_by)) for arrays, n in updates)

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
