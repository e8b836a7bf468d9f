"""Training without the federation: what a hospital could do with its own data, and no privacy.

Such a model stays where it was trained. By the same local loop, with the same network and batches.
"""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import nn

from client.cohort import Samples
from client.oversampling import factors_of
from client.training import (
    PlainGradient,
    build_optimizer,
    random_part,
    set_learning_rate,
    train_round,
)
from common.seeding import generator, seed
from common.study import PrivacyConfig, Study
from common.tasks.registry import build_task
from common.training_config import TrainingConfig, learning_rate


def train_alone(
    model: nn.Module,
    study: Study,
    samples: Samples,
    label: str,
    rounds: range,
    device: torch.device,
    on_step: Callable[[int], None] = lambda _: None,
    mu: float = 0.0,
) -> None:
    """Train the model in place through these rounds of the study's schedule, with one optimiser.

    label: makes the draws of this training its own. on_step: may raise to end it. mu: weight of the
    proximal term to the weights as each round begins.
    """
    optimizer = build_optimizer(study.training, model, study.training.lr)
    alone = replace(
        study,
        strategy=replace(study.strategy, proximal_mu=mu),
        training=_as_long(study),
        privacy=PrivacyConfig(),
    )
    task = build_task(study.task)
    for number in rounds:
        set_learning_rate(optimizer, learning_rate(study.training, number, study.rounds))
        draws = generator(seed(study.seed, number, label, "draws"))
        count = len(samples.patients)
        source = PlainGradient(model, alone.training, count, draws, factors_of(samples, study))
        draws = generator(seed(study.seed, number, label, "augment"))
        changed = random_part(study, task, draws)
        with torch.random.fork_rng():
            torch.manual_seed(seed(study.seed, number, label, "dropout"))
            train_round(source, optimizer, samples, task, alone, changed, device, on_step)


def _as_long(study: Study) -> TrainingConfig:
    """Return the training; the rate of a private study is for gradients of its clip's length."""
    if not study.privacy.private:
        return study.training
    return replace(study.training, grad_clip_norm=study.privacy.max_grad_norm)
