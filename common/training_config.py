"""The settings of the local loop."""

import math
from dataclasses import dataclass

from common.checks import in_range, not_negative, one_of, positive

COSINE_END = 0.01
"""Share of the first learning rate that the last round of a cosine has."""


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """The local loop of one round at one site."""

    optimizer: str = "adamw"
    """adamw or sgd."""
    lr: float = 1e-3
    """Learning rate of the first round."""
    schedule: str = "constant"
    """constant, or cosine: lr falls to 1 % of its start over the rounds of the study."""
    weight_decay: float = 0.0
    """Decoupled for adamw, added to the gradient for sgd."""
    momentum: float = 0.0
    """Momentum of sgd; adamw has its own and refuses one here."""
    batch_size: int = 8
    """Samples of a step; with differential privacy the expected number of patients of a step."""
    local_epochs: int = 1
    """Passes over the site's training data in a round; used where local_steps is null."""
    local_steps: int | None = None
    """Optimiser steps of a round, instead of epochs."""
    local_first_steps: int | None = None
    """FedRep: in so many steps at the start of a round only what model.local keeps at the site is
    trained, and then only the rest; null: all at once."""
    lr_factors: dict[str, float] | None = None
    """By part of the network (head, norms, or a name with * for any letters), a factor on its
    learning rate; where several name a tensor the last counts. null: one rate for all."""
    oversample: dict[str, float] | None = None
    """By class, how many times as often an image of it is drawn as one of the others; 1 or more.
    With privacy the largest is charged to everybody. null: all are drawn alike."""
    logit_adjustment: float | None = None
    """Times how much the log of each class's frequency at the site is added to its logit in
    training (client/logit_adjustment.py), so that no site teaches how rare its classes are; 1 is
    the whole of it. null: nothing is added."""
    grad_clip_norm: float | None = None
    """Largest norm of the batch gradient; null: none. Per-patient clipping is privacy's own."""
    amp: bool = False
    """Mixed precision (bfloat16 autocast) in training; refused on a CPU without its arithmetic."""

    @property
    def most_oversampled(self) -> float:
        """The largest factor of oversample; 1 without."""
        return max((self.oversample or {}).values(), default=1.0)

    def __post_init__(self) -> None:
        one_of(("adamw", "sgd"), **{"training.optimizer": self.optimizer})
        one_of(("constant", "cosine"), **{"training.schedule": self.schedule})
        positive(**{"training.lr": self.lr, "training.batch_size": self.batch_size})
        positive(**{"training.local_epochs": self.local_epochs})
        not_negative(**{"training.weight_decay": self.weight_decay})
        in_range(0.0, 0.9999, **{"training.momentum": self.momentum})
        if self.local_steps is not None:
            positive(**{"training.local_steps": self.local_steps})
        if self.local_first_steps is not None:
            positive(**{"training.local_first_steps": self.local_first_steps})
        positive(**{f"training.lr_factors.{n}": f for n, f in (self.lr_factors or {}).items()})
        for name, factor in (self.oversample or {}).items():
            in_range(1.0, 1000.0, **{f"training.oversample.{name}": factor})
        if self.logit_adjustment is not None:
            positive(**{"training.logit_adjustment": self.logit_adjustment})
        if self.grad_clip_norm is not None:
            positive(**{"training.grad_clip_norm": self.grad_clip_norm})
        if self.optimizer == "adamw" and self.momentum:
            raise ValueError(
                f"training.momentum={self.momentum} has no effect with training.optimizer=adamw; "
                "leave it at 0 or choose training.optimizer=sgd"
            )


def learning_rate(training: TrainingConfig, round_number: int, rounds: int) -> float:
    """Return the learning rate of a round, counted from 1.

    cosine: from lr in the first round to 1 % of lr in the last (Loshchilov and Hutter, ICLR 2017,
    Eq. 5, without restarts, one value a round).
    """
    if training.schedule == "constant" or rounds == 1:
        return training.lr
    done = (round_number - 1) / (rounds - 1)
    return training.lr * (COSINE_END + (1 - COSINE_END) * (1 + math.cos(math.pi * done)) / 2)
