"""A site's part of one round: where its gradients, its chance and its noise come from."""

from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from client.logit_adjustment import adjusted
from client.oversampling import factors_of
from client.privacy.dp_sgd import PrivateGradient
from client.progress import OnProgress
from client.training import (
    GradientSource,
    LocalResult,
    PlainGradient,
    build_optimizer,
    random_part,
    train_round,
)
from client.work import Work, physical_batch
from common.control import correction_of, next_own
from common.seeding import generator, secret_generator, seed
from common.training_config import learning_rate


@dataclass(frozen=True)
class Place:
    """What a round depends on besides the study, the data and the weights."""

    site: str
    key: bytes
    """The site's secret."""
    device: torch.device


@dataclass(frozen=True)
class Controls:
    """Control variates as a round begins, by parameter; empty where the study has none."""

    everybodys: Mapping[str, Tensor]
    own: Mapping[str, Tensor]


def local_round(
    work: Work,
    place: Place,
    round_number: int,
    release: str,
    controls: Controls,
    on_progress: OnProgress,
) -> tuple[LocalResult, dict[str, Tensor]]:
    """Train work.model for one round, in place; return what was done and the site's next variates.

    release: names what is about to leave.
    """
    study, samples, model = work.study, work.cohort.train, work.model
    lr = learning_rate(study.training, round_number, study.rounds)
    optimizer = build_optimizer(study.training, model, lr)
    draws = _Draws(work, place, round_number, release)
    source, steps = _source_of(work, place, optimizer, draws)
    changed = random_part(study, work.task, draws.of("augment"))
    before = _controlled(model, controls)
    correction = correction_of(model, controls.everybodys, controls.own) if before else []
    with _drawn_by_itself(draws, place.device), closing(source):
        done = train_round(
            source,
            optimizer,
            samples,
            adjusted(work.task, samples, study),
            study,
            changed,
            place.device,
            lambda done: on_progress(done, steps),
            correction,
            work.local,
        )
    after = _controlled(model, controls)
    return done, next_own(controls.everybodys, controls.own, before, after, done.steps, lr)


@dataclass(frozen=True)
class _Draws:
    """Where the chance of a round comes from."""

    work: Work
    place: Place
    round_number: int
    release: str

    def of(self, purpose: str, device: str | torch.device = "cpu") -> torch.Generator:
        """Return the generator of one purpose."""
        # The server knows the study's seed. With privacy all that is drawn is the site's secret: a
        # patient more shifts the changes and the masks of those behind, which only one who knows
        # these could tell from chance.
        if self.work.plan is None:
            start = seed(self.work.study.seed, self.round_number, self.place.site, purpose)
            return generator(start)
        return secret_generator(self.place.key, self.release, purpose, device=device)


def _source_of(
    work: Work, place: Place, optimizer: torch.optim.Optimizer, draws: _Draws
) -> tuple[GradientSource, int]:
    """Return where the gradients come from, and the steps of the round."""
    study, samples = work.study, work.cohort.train
    if work.plan is None:
        plain = PlainGradient(
            work.model,
            study.training,
            len(samples.patients),
            draws.of("draws"),
            factors_of(samples, study),
        )
        return plain, plain.steps
    images, _ = physical_batch(work, place.device)
    private = PrivateGradient(
        work.model,
        optimizer,
        work.plan,
        study,
        samples,
        draws.of("draws"),
        draws.of("noise", place.device),
        images,
    )
    return private, work.plan.steps_a_round


def _controlled(model: nn.Module, controls: Controls) -> dict[str, Tensor]:
    """Return a copy of the parameters that have variates, on the CPU."""
    parameters = model.named_parameters()
    return {n: p.detach().cpu().clone() for n, p in parameters if n in controls.everybodys}


@contextmanager
def _drawn_by_itself(draws: _Draws, device: torch.device) -> Iterator[None]:
    """Give the global generators, which drop-out alone reads, the round's own state in a block."""
    with torch.random.fork_rng():
        torch.set_rng_state(draws.of("dropout").get_state())
        if device.type == "cuda":
            torch.cuda.set_rng_state(draws.of("dropout", device).get_state(), device)
        yield
