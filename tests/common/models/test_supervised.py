"""Networks that are held to the target at several depths while they train."""

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn

from common.models.dynunet import DynUNetConfig
from common.models.nested_unet import NestedUNetConfig
from common.models.registry import build_model
from common.tasks.segmentation import supervised
from tests.client.privacy.engine.naive import assert_each_units_gradient
from tests.common.models.tiny import tiny

NETWORKS = pytest.mark.parametrize(("name", "depths"), [("dynunet", 2), ("unet_plus_plus", 4)])


def built(name: str) -> nn.Module:
    config = tiny(name)
    if isinstance(config, NestedUNetConfig):
        config = replace(config, deep_supervision=True)
    return build_model(config, seed=0)


@NETWORKS
def test_in_training_there_are_logits_of_every_depth_and_else_the_finest(
    name: str, depths: int
) -> None:
    network, images = built(name), torch.randn(2, 1, 16, 16)
    assert network.train()(images).shape == (2, depths, 2, 16, 16)
    with torch.no_grad():
        first = network(images)[:, 0]
    torch.testing.assert_close(network.eval()(images), first)


@NETWORKS
def test_in_training_too_each_patient_has_a_gradient_of_its_own(name: str, depths: int) -> None:
    network = built(name).double().train()
    images = torch.randn(3, 1, 16, 16, dtype=torch.float64)
    assert_each_units_gradient(network, images, [1, 2], 1e-6)
    network.zero_grad()
    network(images).square().sum().backward()
    assert not [n for n, p in network.named_parameters() if p.grad is None]


def test_a_network_that_has_trained_can_be_copied() -> None:
    network = built("dynunet").train()
    images = torch.randn(2, 1, 16, 16)
    network(images).sum().backward()
    copied = copy.deepcopy(network)
    torch.testing.assert_close(copied.eval()(images), network.eval()(images))
    with torch.no_grad():
        next(copied.parameters()).add_(1)
    assert not torch.equal(copied(images), network(images))


def test_depths_count_half_as_much_each() -> None:
    logits, target = torch.randn(2, 3, 2, 4, 4), torch.zeros(2, 1, 4, 4, dtype=torch.int64)

    def criterion(of: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
        return of.mean()

    means = logits.mean((0, 2, 3, 4))
    expected = (means[0] + means[1] / 2 + means[2] / 4) / 1.75
    torch.testing.assert_close(supervised(criterion, logits, target), expected)
    torch.testing.assert_close(supervised(criterion, logits[:, 0], target), means[0])


def test_more_supervised_levels_than_there_are_is_refused() -> None:
    with pytest.raises(ValueError, match="supervised_levels=2 is more than the 1 levels"):
        DynUNetConfig(name="dynunet", channels=[4, 6, 6], supervised_levels=2)
