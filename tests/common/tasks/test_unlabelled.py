import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from common.tasks.config import TaskConfig, UnlabelledConfig
from common.tasks.registry import build_task
from common.tasks.task import Task
from common.tasks.unlabelled import UNLABELLED, guess_cross_entropy, guesses, without_labels
from tests.builders import study_from

ASKED = "task.unlabelled={weight: 0.3, least_confidence: 0.7}"
CLASSES = 3
KINDS = {
    "classification": ("task=classification", "task.classes=[a,b,c]", "model=cnn"),
    "segmentation": ("task=segmentation", "task.classes=[a,b]", "task.label_values=[1,2]"),
}


def task_of(kind: str, *overrides: str) -> Task:
    return build_task(study_from(*KINDS[kind], f"task.out_channels={CLASSES}", *overrides).task)


def batch(kind: str, seed: int, images: int) -> tuple[Tensor, Tensor]:
    """Return logits and targets, of which some are people's, some guessed and some neither."""
    draws = torch.Generator().manual_seed(seed)
    space = (4, 4) if kind == "segmentation" else ()
    logits = 2 * torch.randn(images, CLASSES, *space, generator=draws)
    shape = (images, 1, *space) if space else (images,)
    targets = torch.randint(CLASSES, shape, generator=draws)
    guessed = torch.randint(-1 - CLASSES, 0, shape, generator=draws)
    without = torch.rand(images, generator=draws) < 0.5
    return logits, torch.where(without.reshape(-1, *[1] * (len(shape) - 1)), guessed, targets)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**31), least=st.floats(0.5, 0.99))
def test_only_what_is_as_probable_as_asked_is_guessed(seed: int, least: float) -> None:
    logits, _ = batch("segmentation", seed, 3)
    probabilities = logits.softmax(1)
    guessed = guesses(probabilities, least)
    for image, place in ((0, (0, 0)), (1, (3, 2)), (2, (1, 3))):
        at = probabilities[image, :, *place]
        expected = -2 - int(at.argmax()) if float(at.max()) >= least else UNLABELLED
        assert int(guessed[image, *place]) == expected
    assert bool(without_labels(guessed).all())


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**31), images=st.integers(1, 6))
def test_the_loss_of_a_batch_is_the_mean_of_what_each_image_has_alone(
    kind: str, seed: int, images: int
) -> None:
    logits, targets = batch(kind, seed, images)
    supervised, mixed = task_of(kind), task_of(kind, ASKED)
    each = []
    for logit, target in zip(logits, targets, strict=True):
        if bool((target >= 0).all()):
            each.append(supervised.loss(logit[None], target[None]))
            continue
        total, places = 0.0, logit.reshape(CLASSES, -1).T
        for place, said in zip(places, target.flatten().tolist(), strict=True):
            if said < UNLABELLED:
                total -= float(place.log_softmax(0)[-2 - said])
        each.append(torch.tensor(0.3 * total / len(places)))
    expected = float(torch.stack(each).mean())
    assert float(mixed.loss(logits, targets)) == pytest.approx(expected, rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_with_labels_alone_the_loss_is_the_usual_one(kind: str) -> None:
    logits, targets = batch(kind, 0, 5)
    told = targets.clamp(min=0)
    assert torch.equal(task_of(kind, ASKED).loss(logits, told), task_of(kind).loss(logits, told))


def test_what_moving_an_image_has_added_at_its_border_is_learned_as_it_is() -> None:
    logits = torch.randn(1, 2, 2)
    found = guess_cross_entropy(logits, torch.tensor([[0, UNLABELLED]]))
    expected = F.cross_entropy(logits[..., 0], torch.tensor([0])) / 2
    torch.testing.assert_close(found, expected)


def test_a_network_with_answers_at_several_depths_learns_guesses_at_each() -> None:
    logits, targets = batch("segmentation", 1, 4)
    mixed = task_of("segmentation", ASKED)
    deep = torch.stack([logits, -logits], dim=1)
    expected = (mixed.loss(logits, targets) + 0.5 * mixed.loss(-logits, targets)) / 1.5
    torch.testing.assert_close(mixed.loss(deep, targets), expected)


@pytest.mark.parametrize(
    ("weight", "least"), [(0.0, 0.9), (-1.0, 0.9), (1.0, 0.3), (1.0, math.nan)]
)
def test_settings_out_of_range_are_refused(weight: float, least: float) -> None:
    with pytest.raises(ValueError, match=r"task\.unlabelled"):
        UnlabelledConfig(weight=weight, least_confidence=least)


def test_a_task_without_one_class_to_be_sure_of_refuses() -> None:
    with pytest.raises(ValueError, match="no one class to be sure of"):
        TaskConfig(name="survival", unlabelled=UnlabelledConfig())
