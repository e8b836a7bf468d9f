from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from client.cohort import Samples
from client.evaluation import predict
from client.guessing import guessed
from client.training import PlainGradient, build_optimizer, train_round
from common.models.registry import build_model
from common.seeding import generator
from common.study import Study
from common.tasks.registry import build_task
from common.tasks.unlabelled import UNLABELLED
from common.transforms import augment
from tests.builders import PICTURES, samples_of, study_from

CPU = torch.device("cpu")
SAMPLES = samples_of([1] * 8)
LABELLED = torch.arange(8) < 3


def study(least: float, *overrides: str) -> Study:
    asked = f"task.unlabelled={{weight: 1.0, least_confidence: {least}}}"
    return study_from(*PICTURES, "training.optimizer=sgd", "training.lr=0.1", asked, *overrides)


def some_labelled() -> Samples:
    return replace(SAMPLES, targets=torch.where(LABELLED, SAMPLES.targets, UNLABELLED))


def trained(of: Study, samples: Samples) -> Tensor:
    """Return the weights after a round from the study's start."""
    model = build_model(of.model, 0)
    train_round(
        PlainGradient(model, of.training, len(samples.patients), generator(3)),
        build_optimizer(of.training, model, of.training.lr),
        samples,
        build_task(of.task),
        of,
        augment(of.data, generator(0)),
        CPU,
    )
    return flat(model)


def flat(model: nn.Module) -> Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def test_only_images_without_labels_are_guessed_and_by_the_model_as_it_is() -> None:
    of = study(0.5)
    model, task = build_model(of.model, 0), build_task(of.task)
    found = guessed(model, some_labelled(), task, CPU).targets
    answers = predict(model, SAMPLES, task, CPU).argmax(1)
    assert torch.equal(found, torch.where(LABELLED, SAMPLES.targets, -2 - answers))


def test_where_a_study_learns_from_labels_alone_nothing_is_guessed() -> None:
    of = study_from(*PICTURES)
    samples = some_labelled()
    assert guessed(build_model(of.model, 0), samples, build_task(of.task), CPU) is samples


def test_a_site_without_labels_does_not_move_a_model_that_is_sure_of_nothing() -> None:
    of = study(0.9999, "training.local_epochs=2")
    nobody = replace(SAMPLES, targets=torch.full_like(SAMPLES.targets, UNLABELLED))
    assert torch.equal(trained(of, nobody), flat(build_model(of.model, 0)))


@pytest.mark.parametrize("weight", [1.0, 0.5])
def test_a_model_that_is_sure_of_all_learns_its_answers_as_labels(weight: float) -> None:
    of = study(0.5, f"task.unlabelled.weight={weight}")
    model, task = build_model(of.model, 0), build_task(of.task)
    answers = predict(model, SAMPLES, task, CPU).argmax(1)
    nobody = replace(SAMPLES, targets=torch.full_like(answers, UNLABELLED))
    by_people = study_from(*PICTURES, "training.optimizer=sgd", f"training.lr={0.1 * weight}")
    expected = trained(by_people, replace(SAMPLES, targets=answers))
    torch.testing.assert_close(trained(of, nobody), expected, rtol=0, atol=1e-6)
