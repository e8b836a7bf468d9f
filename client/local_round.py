"""A site's part of one round: where its gradients, its chance and its noise come from."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

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
from common.state import state_of
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
    study, samples = work.study, work.cohort.train
    lr = learning_rate(study.training, round_number, study.rounds)
    optimizer = build_optimizer(study.training, work.model, lr)
    source: GradientSource

    def draws_for(purpose: str, device: str | torch.device = "cpu") -> torch.Generator:
        # The server knows the study's seed. With privacy all that is drawn is the site's secret: a
        # patient more shifts the changes and the masks of those behind, which only one who knows
        # these could tell from chance.
        if work.plan is None:
            return generator(seed(study.seed, round_number, place.site, purpose))
        return secret_generator(place.key, release, purpose, device=device)

    if work.plan is None:
        draws = draws_for("draws")
        factor_N = factors_of(samples, study)
        source = PlainGradient(work.model, study.training, len(samples.patients), draws, factor_N)
        steps = source.steps
    else:
        steps = work.plan.steps_a_round
        images, _ = physical_batch(work, place.device)
        source = PrivateGradient(
            work.model,
            optimizer,
            work.plan,
            study,
            samples,
            draws_for("draws"),
            draws_for("noise", place.device),
            images,
        )
    changed = random_part(study, work.task, draws_for("augment"))
    corrected = bool(controls.everybodys)
    before = state_of(work.model) if corrected else {}
    correction: list[Tensor] = []
    if corrected:
        correction = correction_of(work.model, controls.everybodys, controls.own)
    with torch.random.fork_rng():
        # Drop-out alone reads the global generators.
        torch.set_rng_state(draws_for("dropout").get_state())
        if place.device.type == "cuda":
            state = draws_for("dropout", place.device).get_state()
            torch.cuda.set_rng_state(state, place.device)
        try:
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
        finally:
            source.close()
    after = state_of(work.model) if corrected else {}
    return done, next_own(controls.everybodys, controls.own, before, after, done.steps, lr)
