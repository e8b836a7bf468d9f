"""Laws of a class that is answered by one output: each is that of the sigmoid."""

from typing import Any

import pytest
import torch
from monai.losses import DiceCELoss, DiceLoss, TverskyLoss
from torch.nn import functional as F

from common.tasks.config import LossConfig
from common.tasks.one_output import of_both
from common.tasks.registry import build_task
from common.tasks.segmentation import SegmentationConfig
from common.tasks.unlabelled import guess_cross_entropy

Z = torch.randn(3, 1, 6, 5, generator=torch.Generator().manual_seed(0)) * 3
TRUTH = (torch.rand(3, 1, 6, 5, generator=torch.Generator().manual_seed(1)) < 0.4).long()


def loss_by(name: str | None, **settings: Any) -> torch.Tensor:
    loss = None if name is None else LossConfig(name=name, **settings)
    config = SegmentationConfig(
        name="segmentation", classes=["lesion"], label_values=[1], loss=loss
    )
    return build_task(config).loss(Z, TRUTH)


def test_the_probability_of_the_class_is_the_sigmoid_of_the_one_output() -> None:
    config = SegmentationConfig(name="segmentation", classes=["lesion"], label_values=[1])
    found = build_task(config).activate(Z)
    torch.testing.assert_close(found[:, 1:], Z.sigmoid())
    torch.testing.assert_close(found.sum(1), torch.ones(3, 6, 5))


@pytest.mark.parametrize("shape", [(2, 2, 4, 4), (2, 3, 4, 4, 4), (5, 1), (5, 14)])
def test_more_outputs_and_those_of_an_image_are_as_they_are(shape: tuple[int, ...]) -> None:
    logits = torch.randn(shape)
    assert of_both(logits) is logits


def test_every_loss_of_one_output_is_the_loss_of_a_sigmoid() -> None:
    truth = TRUTH.float()
    entropy = F.binary_cross_entropy_with_logits(Z, truth, reduction="none")
    p = torch.where(TRUTH > 0, Z.sigmoid(), 1 - Z.sigmoid())
    weight = torch.where(TRUTH > 0, 3.0, 1.0)
    tversky = TverskyLoss(sigmoid=True, alpha=0.3, beta=0.7, reduction="none")(Z, truth)
    expected = {
        "usual": DiceCELoss(sigmoid=True)(Z, truth),
        "dice": DiceLoss(sigmoid=True)(Z, truth),
        "cross_entropy": entropy.mean(),
        "weighted": (weight * entropy).mean(),
        "focal": ((1 - p) ** 2 * entropy).mean(),
        "tversky": tversky.mean(),
        "focal_tversky": (tversky**0.75).mean(),
    }
    found = {
        "usual": loss_by(None),
        "dice": loss_by("dice"),
        "cross_entropy": loss_by("cross_entropy"),
        "weighted": loss_by("cross_entropy", class_weights=[1.0, 3.0]),
        "focal": loss_by("focal"),
        "tversky": loss_by("tversky"),
        "focal_tversky": loss_by("focal_tversky"),
    }
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, msg=name)


def test_what_images_without_labels_show_is_learned_by_one_output_too() -> None:
    guessed = torch.full_like(TRUTH, -3)
    torch.testing.assert_close(guess_cross_entropy(of_both(Z), guessed), F.softplus(-Z).mean())


def test_deep_supervision_of_one_output_weighs_the_depths_as_ever() -> None:
    config = SegmentationConfig(name="segmentation", classes=["lesion"], label_values=[1])
    task = build_task(config)
    depths = torch.stack([Z, -Z], dim=1)
    expected = (task.loss(Z, TRUTH) + 0.5 * task.loss(-Z, TRUTH)) / 1.5
    torch.testing.assert_close(task.loss(depths, TRUTH), expected)
