import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from common.tasks.config import LossConfig
from common.tasks.losses import OF_IMAGES, OF_VOXELS, loss_of

WEIGHTS = [0.5, 2.0, 3.0]


def a_batch(seed: int, voxels: bool, count: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    draws = torch.Generator().manual_seed(seed)
    shape = (6, 5) if voxels else ()
    logits = torch.randn(count, 3, *shape, generator=draws, dtype=torch.float64)
    target = torch.randint(3, (count, 1, *shape) if voxels else (count,), generator=draws)
    return logits, target


CHOICES = [(OF_VOXELS, True, name) for name in OF_VOXELS]
CHOICES += [(OF_IMAGES, False, name) for name in OF_IMAGES]
WITH_WEIGHTS = ("dice_ce", "dice", "cross_entropy", "focal")


@pytest.mark.parametrize(("known", "voxels", "name"), CHOICES)
@given(seed=st.integers(0, 99))
def test_the_loss_of_a_batch_is_the_mean_of_its_images_losses(
    known: dict[str, object], voxels: bool, name: str, seed: int
) -> None:
    weights = WEIGHTS if name in WITH_WEIGHTS else None
    loss = loss_of(known, LossConfig(name=name, class_weights=weights), 3)
    logits, target = a_batch(seed, voxels)
    each = [loss(logits[i : i + 1], target[i : i + 1]) for i in range(len(logits))]
    torch.testing.assert_close(loss(logits, target), torch.stack(each).mean())


@pytest.mark.parametrize(("known", "voxels", "name"), CHOICES)
def test_the_right_answer_costs_nearly_nothing_and_its_slope_is_finite(
    known: dict[str, object], voxels: bool, name: str
) -> None:
    _, target = a_batch(0, voxels)
    labels = target[:, 0] if voxels else target
    right = 40 * F.one_hot(labels, 3).movedim(-1, 1).double()
    logits = right.clone().requires_grad_()
    loss = loss_of(known, LossConfig(name=name), 3)
    value = loss(logits, target)
    value.backward()
    assert float(value) < 1e-3
    assert logits.grad is not None
    assert logits.grad.isfinite().all()
    assert float(loss(-right, target)) > 0.5


def test_focal_without_gamma_is_cross_entropy_and_with_it_forgives_the_easy() -> None:
    logits, target = a_batch(1, voxels=False)
    plain = loss_of(OF_IMAGES, LossConfig(name="cross_entropy"), 3)(logits, target)
    nearly = loss_of(OF_IMAGES, LossConfig(name="focal", gamma=1e-9), 3)(logits, target)
    torch.testing.assert_close(nearly, plain)
    assert loss_of(OF_IMAGES, LossConfig(name="focal"), 3)(logits, target) < plain


@pytest.mark.parametrize("gamma", [0.3, 0.5, 1.0, 2.0])
def test_focal_has_a_slope_also_where_the_answer_is_sure(gamma: float) -> None:
    logits = torch.tensor([[20.0, -20.0], [-90.0, 90.0]], requires_grad=True)
    config = LossConfig(name="focal", gamma=gamma)
    loss_of(OF_IMAGES, config, 2)(logits, torch.tensor([0, 1])).backward()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


def test_focal_is_the_papers_equation() -> None:
    logits, target = a_batch(2, voxels=False)
    p = logits.softmax(1)[torch.arange(4), target]
    w = torch.tensor(WEIGHTS, dtype=torch.float64)[target]
    expected = (-w * (1 - p) ** 3 * p.log()).mean()
    config = LossConfig(name="focal", gamma=3.0, class_weights=WEIGHTS)
    torch.testing.assert_close(loss_of(OF_IMAGES, config, 3)(logits, target), expected)


def test_tversky_with_equal_sides_is_dice() -> None:
    logits, target = a_batch(3, voxels=True)
    even = loss_of(OF_VOXELS, LossConfig(name="tversky", false_negatives=0.5), 3)
    soft = loss_of(OF_VOXELS, LossConfig(name="dice"), 3)
    torch.testing.assert_close(even(logits, target), soft(logits, target), rtol=1e-5, atol=1e-6)


@given(seed=st.integers(0, 99), first=st.floats(0.01, 100.0), second=st.floats(0.01, 100.0))
def test_weighted_dice_is_the_weighted_mean_of_each_classs_dice(
    seed: int, first: float, second: float
) -> None:
    logits, target = a_batch(seed, voxels=True)
    config = LossConfig(name="dice", class_weights=[7.0, first, second])
    probability = logits.softmax(1)
    naive = torch.zeros((), dtype=torch.float64)
    for image in range(len(logits)):
        for label, weight in ((1, first), (2, second)):
            found, truth = probability[image, label], (target[image, 0] == label).double()
            overlap = 2 * (found * truth).sum() / (found.sum() + truth.sum())
            naive += weight / (first + second) * (1 - overlap) / len(logits)
    # MONAI adds 1e-5 to both parts of the ratio.
    torch.testing.assert_close(
        loss_of(OF_VOXELS, config, 3)(logits, target).double(), naive, rtol=1e-5, atol=1e-5
    )


def test_tversky_minds_what_is_missed_more_where_it_is_asked_to() -> None:
    target = torch.zeros(1, 1, 8, 8, dtype=torch.int64)
    target[..., :4, :] = 1
    missed = torch.stack([torch.full((8, 8), 9.0), torch.zeros(8, 8)])[None]
    costs = [
        loss_of(OF_VOXELS, LossConfig(name="tversky", false_negatives=b), 2)(
            torch.cat([missed[:, :1] * 0.05, missed[:, 1:]], 1), target
        )
        for b in (0.3, 0.9)
    ]
    assert costs[1] > costs[0]


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"name": "dice", "gamma": 2.0}, "gamma=2.0 has no effect on task.loss.name=dice"),
        ({"name": "tversky", "class_weights": [1.0]}, "class_weights"),
        ({"name": "focal", "gamma": -1.0}, "gamma=-1.0"),
        ({"name": "tversky", "false_negatives": 1.5}, "false_negatives=1.5"),
        ({"name": "focal", "class_weights": [1.0, 0.0]}, r"class_weights\[1\]=0.0"),
    ],
)
def test_settings_without_effect_or_sense_are_refused(settings: dict, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        LossConfig(**settings)
