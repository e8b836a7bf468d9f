"""The one Strategy: sampling, combiner and server optimiser; an algorithm is a YAML file."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

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
        self, model: State, combined: State, moments: Moments
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Return the next model and the next moments of the server optimiser."""
        return server_step(model, combined, moments, self.config.server_optimizer, self.trained)
