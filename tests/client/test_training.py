import math
from collections import Counter

import pytest
import torch
from torch import Tensor, nn

from client.cohort import Samples
from client.privacy.dp_sgd import PrivateGradient, PrivatePlan
from client.training import (
    GradientSource,
    LocalResult,
    PlainGradient,
    build_optimizer,
    train_round,
)
from common.models.layers import local_names
from common.models.registry import build_model
from common.schema import SettingsError
from common.seeding import generator
from common.study import Study
from common.tasks.registry import build_task
from common.training_config import TrainingConfig
from common.transforms import augment
from tests.builders import PICTURES, PRIVATE, samples_of, study_from

CPU = torch.device("cpu")
LR = 0.1
SGD = (*PICTURES, "training.optimizer=sgd", f"training.lr={LR}", "training.batch_size=4")
SAMPLES = samples_of([1] * 8)
PLAN = PrivatePlan(
    delta=1e-2, sample_rate=0.5, units_a_step=4.0, steps_a_round=4, noise_multiplier=0.5
)


def network(study: Study) -> nn.Module:
    return build_model(study.model, 0)


def flat(model: nn.Module) -> Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def plain(study: Study, model: nn.Module, samples: Samples = SAMPLES) -> GradientSource:
    draws = torch.Generator().manual_seed(3)
    return PlainGradient(model, study.training, len(samples.patients), draws)


def private(study: Study, model: nn.Module, optimizer: torch.optim.Optimizer) -> PrivateGradient:
    draws, noise = (torch.Generator().manual_seed(seed) for seed in (3, 4))
    return PrivateGradient(model, optimizer, PLAN, study, SAMPLES, draws, noise, 64)


def trained(study: Study, samples: Samples = SAMPLES) -> tuple[Tensor, LocalResult]:
    """Return the weights after a round from the same start, and what the round did."""
    model, result = trained_model(study, samples)
    return flat(model), result


def trained_model(study: Study, samples: Samples = SAMPLES) -> tuple[nn.Module, LocalResult]:
    model = network(study)
    optimizer = build_optimizer(study.training, model, study.training.lr)
    source: GradientSource
    if study.privacy.private:
        source = private(study, model, optimizer)
    else:
        source = plain(study, model, samples)
    result = train_round(
        source,
        optimizer,
        samples,
        build_task(study.task),
        study,
        augment(study.data, generator(0)),
        CPU,
        local=local_names(model, study.model),
    )
    source.close()
    return model, result


def test_a_full_batch_step_of_sgd_is_torchs_by_hand() -> None:
    study = study_from(*SGD, "training.batch_size=8")
    weights, result = trained(study)
    model = network(study)
    loss = build_task(study.task).loss(model(SAMPLES.images), SAMPLES.targets)
    gradient = torch.cat([g.flatten() for g in torch.autograd.grad(loss, model.parameters())])
    torch.testing.assert_close(weights, flat(model) - LR * gradient, rtol=0, atol=1e-6)
    assert result.steps == 1
    assert result.mean_loss == pytest.approx(loss.item(), abs=1e-6)


def test_a_clipped_step_is_as_long_as_the_clip() -> None:
    study = study_from(*SGD, "training.batch_size=8", "training.grad_clip_norm=1e-3")
    weights, _ = trained(study)
    moved = weights - flat(network(study))
    assert float(moved.norm()) == pytest.approx(LR * 1e-3, rel=1e-3)


@pytest.mark.parametrize("mu", [0.0, 0.7])
def test_without_privacy_the_gradient_is_plain_plus_mu_times_the_distance(mu: float) -> None:
    study = study_from(*SGD, "training.local_epochs=2", f"strategy.proximal_mu={mu}")
    weights, _ = trained(study)
    model = network(study)
    start = [p.detach().clone() for p in model.parameters()]
    task = build_task(study.task)
    for indices in plain(study, model).batches():
        loss = task.loss(model(SAMPLES.images[indices]), SAMPLES.targets[indices])
        gradients = torch.autograd.grad(loss, list(model.parameters()))
        with torch.no_grad():
            for p, g, w_t in zip(model.parameters(), gradients, start, strict=True):
                p -= LR * (g + mu * (p - w_t))
    torch.testing.assert_close(weights, flat(model), rtol=0, atol=1e-6)


@pytest.mark.parametrize("mu", [0.0, 0.7])
def test_with_privacy_the_step_is_the_private_gradient_plus_mu_times_the_distance(
    mu: float,
) -> None:
    study = study_from(*SGD, *PRIVATE, f"strategy.proximal_mu={mu}")
    weights, result = trained(study)
    model = network(study)
    start = [p.detach().clone() for p in model.parameters()]
    source = private(study, model, torch.optim.SGD(model.parameters(), LR))
    task = build_task(study.task)

    def loss_of(indices: Tensor) -> Tensor:
        return task.loss(source.model(SAMPLES.images[indices]), SAMPLES.targets[indices])

    for indices in source.batches():
        source.backward(indices, loss_of)
        with torch.no_grad():
            for p, w_t in zip(model.parameters(), start, strict=True):
                assert p.grad is not None
                p -= LR * (p.grad + mu * (p - w_t))
    torch.testing.assert_close(weights, flat(model), rtol=0, atol=1e-6)
    assert result == LocalResult(steps=PLAN.steps_a_round, mean_loss=None)


@pytest.mark.parametrize("privacy", [(), PRIVATE])
def test_fedprox_differs_from_fedavg_and_equals_it_at_mu_zero(privacy: tuple[str, ...]) -> None:
    overrides = (*SGD, *privacy, "training.local_epochs=2")
    fedavg, _ = trained(study_from(*overrides))
    at_zero, _ = trained(study_from(*overrides, "strategy=fedprox", "strategy.proximal_mu=0"))
    fedprox, _ = trained(study_from(*overrides, "strategy=fedprox", "strategy.proximal_mu=1"))
    assert torch.equal(fedavg, at_zero)
    assert float((fedprox - fedavg).abs().max()) > 1e-3


def test_an_epoch_meets_every_sample_once() -> None:
    study = study_from(*SGD, "training.batch_size=3", "training.local_epochs=2")
    batches = list(plain(study, network(study)).batches())
    assert [len(batch) for batch in batches] == [3, 3, 2] * 2
    epochs = [torch.cat(batches[:3]).tolist(), torch.cat(batches[3:]).tolist()]
    assert [Counter(epoch) for epoch in epochs] == [Counter(range(8))] * 2
    assert epochs[0] != epochs[1]


@pytest.mark.parametrize("steps", [1, 2, 5])
def test_a_round_of_local_steps_has_that_many(steps: int) -> None:
    study = study_from(*SGD, f"training.local_steps={steps}")
    assert len(list(plain(study, network(study)).batches())) == steps


def test_the_local_optimiser_is_as_the_study_says() -> None:
    model = network(study_from(*SGD))
    training = TrainingConfig(optimizer="sgd", momentum=0.5, weight_decay=0.1)
    sgd = build_optimizer(training, model, 0.3)
    assert isinstance(sgd, torch.optim.SGD)
    assert {k: sgd.defaults[k] for k in ("lr", "momentum", "weight_decay")} == {
        "lr": 0.3,
        "momentum": 0.5,
        "weight_decay": 0.1,
    }
    adamw = build_optimizer(TrainingConfig(weight_decay=0.2), model, 0.3)
    assert isinstance(adamw, torch.optim.AdamW)
    assert math.isclose(adamw.defaults["weight_decay"], 0.2)


@pytest.mark.parametrize("privacy", [(), PRIVATE])
@pytest.mark.parametrize("first", [1, 2])
def test_the_head_is_trained_first_and_then_the_rest_alone(
    first: int, privacy: tuple[str, ...]
) -> None:
    # Two steps; both to the head, or one to each.
    steps = ("training.local_steps=2",) if not privacy else ()
    per = (*SGD, *privacy, *steps, "training.batch_size=4", "model.local=[head]")
    taken = PLAN.steps_a_round if privacy else 2
    first = first * taken // 2
    start = network(study_from(*per)).state_dict()
    model, _ = trained_model(study_from(*per, f"training.local_first_steps={first}"))
    moved = {n for n, p in model.named_parameters() if not torch.equal(p, start[n])}
    head = {"6.weight", "6.bias"} & set(start) or {"4.weight", "4.bias"}
    assert head <= moved
    assert (moved == head) == (first == taken)
    # What the head learned first does not hang on what comes after.
    alone, _ = trained_model(study_from(*per, f"training.local_first_steps={taken}"))
    same = all(torch.equal(model.state_dict()[n], alone.state_dict()[n]) for n in head)
    assert same == (first == taken)


def test_taking_turns_needs_something_that_stays() -> None:
    with pytest.raises(SettingsError, match=r"set model.local=\[head\]"):
        study_from(*SGD, "training.local_first_steps=2")
