"""How the sites' updates become one model: the settings of a strategy, and of the server's step."""

from dataclasses import dataclass, field

from common.checks import in_range, not_negative, one_of, positive


@dataclass(frozen=True, kw_only=True)
class ServerOptimizerConfig:
    """The server's step on the pseudo-gradient (server/optimizers.py)."""

    name: str = "sgd"
    """sgd, adam or yogi. sgd with lr 1 and momentum 0 is plain averaging."""
    lr: float = 1.0
    """Step length; 1 with sgd moves all the way to the mean of the sites."""
    momentum: float = 0.0
    """Momentum of sgd."""
    beta1: float = 0.9
    """Decay of the first moment of adam and yogi."""
    beta2: float = 0.99
    """Decay of the second moment of adam and yogi."""
    tau: float = 1e-3
    """Adaptivity of adam and yogi: the larger, the nearer to sgd with momentum."""

    def __post_init__(self) -> None:
        one_of(("sgd", "adam", "yogi"), **{"strategy.server_optimizer.name": self.name})
        prefix = "strategy.server_optimizer."
        positive(**{f"{prefix}lr": self.lr, f"{prefix}tau": self.tau})
        for name in ("momentum", "beta1", "beta2"):
            in_range(0.0, 0.9999, **{prefix + name: getattr(self, name)})


ROBUST = ("median", "trimmed_mean", "krum")
"""Ways to combine updates that do not weight them."""

BY_METRIC = ("fairness_q", "generalisation_step", "agnostic_step")
"""Settings that weight the sites by metrics of their held-out patients, in every round."""


@dataclass(frozen=True, kw_only=True)
class StrategyConfig:
    """How the sites' updates become one model."""

    name: str = "fedavg"
    """Name for reports; the algorithm is the fields below."""
    combine: str = "mean"
    """How updates are combined: mean; or so that a few faulty ones cannot move the model far:
    median, trimmed_mean or krum (server/robust.py)."""
    faulty: int | None = None
    """Faulty or malicious updates of a round that the model is to stand; null with mean, which
    stands none."""
    weight_by: str = "patients"
    """patients: each site counts by its training patients; uniform: each site counts the same."""
    server_optimizer: ServerOptimizerConfig = field(default_factory=ServerOptimizerConfig)
    """The server's step."""
    proximal_mu: float = 0.0
    """FedProx: weight of mu/2 ||w - w_t||^2 at the sites; 0 is FedAvg."""
    fraction: float = 1.0
    """Share of the training sites asked in a round."""
    quorum: int = 1
    """Least number of accepted updates in a round; with fewer the run ends as failed."""
    round_timeout_s: float = 3600.0
    """Seconds after which a site that has not answered counts as missing, reading included."""
    stall_timeout_s: float = 600.0
    """Seconds without a new batch after which a site counts as missing, on a real network alone."""
    averaged_rounds: int | None = None
    """The final model is the mean of the global models after so many last rounds; null: the last
    model."""
    control_variates: bool | None = None
    """SCAFFOLD: whether local steps are corrected by control variates; null: they are not."""
    fairness_q: float | None = None
    """q-FFL: a site's weight is multiplied by how far the incoming model is from the best there, to
    the power q; null: it is not."""
    generalisation_step: float | None = None
    """FedDG-GA: share of the weights that moves, in the first round, to the sites where averaging
    costs most; null: the weights are weight_by's."""
    agnostic_step: float | None = None
    """AFL: by how much the weights of a round climb to the sites where the model is bad, for the
    whole range of the metric; null: they do not."""
    tested: list[str] | None = None
    """Sites that are asked to evaluate the model and never to train it; null: none."""

    def __post_init__(self) -> None:
        one_of(("mean", *ROBUST), **{"strategy.combine": self.combine})
        one_of(("patients", "uniform"), **{"strategy.weight_by": self.weight_by})
        not_negative(**{"strategy.proximal_mu": self.proximal_mu})
        in_range(0.0, 1.0, **{"strategy.fraction": self.fraction})
        positive(**{"strategy.fraction": self.fraction, "strategy.quorum": self.quorum})
        positive(**{"strategy.round_timeout_s": self.round_timeout_s})
        positive(**{"strategy.stall_timeout_s": self.stall_timeout_s})
        self._check_weights()
        self._check_combine()
        if self.averaged_rounds is not None:
            positive(**{"strategy.averaged_rounds": self.averaged_rounds})

    def _check_weights(self) -> None:
        """Refuse more than one way to weight the sites by how good the model is there."""
        given = {n: value for n in BY_METRIC if (value := getattr(self, n)) is not None}
        positive(**{f"strategy.{name}": value for name, value in given.items()})
        if self.generalisation_step is not None:
            in_range(0.0, 1.0, **{"strategy.generalisation_step": self.generalisation_step})
        if len(given) > 1:
            told = " and ".join(f"strategy.{name}={value:g}" for name, value in given.items())
            raise ValueError(f"{told} each set the sites' weights; set all but one of them to null")
        if given and self.control_variates:
            (name,) = given
            raise ValueError(
                f"strategy.{name}={given[name]:g} weights the sites anew in each round, and the "
                "variates of strategy.control_variates=true correct for one mean of them alone; "
                "set one of the two to null"
            )

    def _check_combine(self) -> None:
        name = f"strategy.combine={self.combine}"
        if (self.combine == "mean") != (self.faulty is None):
            raise ValueError(
                f"strategy.faulty={self.faulty} and {name} do not go together: mean stands no "
                f"faulty update (null), {', '.join(ROBUST)} a number of them that they must know"
            )
        if self.faulty is None:
            return
        not_negative(**{"strategy.faulty": self.faulty})
        least = 2 * self.faulty + (3 if self.combine == "krum" else 1)
        if self.quorum < least:
            raise ValueError(
                f"strategy.quorum={self.quorum}: with fewer than {least} updates {name} cannot "
                f"stand strategy.faulty={self.faulty}; set quorum to {least} or more"
            )
        weighted = {
            "weight_by": self.weight_by if self.weight_by != "uniform" else None,
            **{name: getattr(self, name) for name in BY_METRIC},
            "control_variates": self.control_variates,
        }
        for setting, value in weighted.items():
            if value:
                raise ValueError(
                    f"strategy.{setting}={value} makes a mean, and {name} makes none; set it to "
                    f"{'uniform' if setting == 'weight_by' else 'null'}"
                )
