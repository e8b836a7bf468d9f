from dataclasses import replace

import pytest
import torch
from torch import Tensor

from common.models.catalogue import CARDS
from common.models.late_fusion import LateFusion, with_covariates
from common.models.layers import head_keys
from common.models.registry import build_model
from tests.client.privacy.engine.naive import assert_each_units_gradient
from tests.common.models.tiny import SMALLEST, size_for, tiny

ASKED = {"age": [20, 80], "sex": ["F", "M"]}
OF_IMAGES = sorted(name for name in SMALLEST if "classification" in CARDS[name].tasks)


def images(size: int, numbers: list[float], count: int = 1) -> Tensor:
    draws = torch.Generator().manual_seed(0)
    return with_covariates(torch.randn(count, 1, size, size, generator=draws), numbers)


def fused(name: str) -> LateFusion:
    network = build_model(replace(tiny(name), covariates=ASKED), seed=0)
    assert isinstance(network, LateFusion)
    return network


def test_covariates_lie_in_one_more_channel_and_the_image_is_as_it_was() -> None:
    image = torch.rand(2, 1, 4, 4)
    made = with_covariates(image, [0.5, -1.0])
    assert torch.equal(made[:, :1], image)
    assert made[:, 1].flatten(1).tolist() == [[0.5, -1.0, *[0.0] * 14]] * 2


@pytest.mark.parametrize("name", OF_IMAGES)
def test_logits_are_those_of_the_image_and_of_the_covariates_together(name: str) -> None:
    network = fused(name).eval()
    alone = build_model(tiny(name), seed=0).eval()
    network.image.load_state_dict(alone.state_dict())
    first, second = (images(size_for(name), n) for n in ([0.0, 0.3, 0.0, 1.0, 0.0], [1.0, 0.0]))
    with torch.no_grad():
        of_image = alone(first[:, :1])
        for both in (first, second):
            said = network.covariates(both[:, -1].flatten(1)[:, :5])
            torch.testing.assert_close(network(both), of_image + said)
        assert not torch.allclose(network(first), network(second))


@pytest.mark.parametrize("name", OF_IMAGES)
def test_each_units_gradient_is_the_naive_one(name: str) -> None:
    draws = torch.Generator().manual_seed(1)
    size = size_for(name)
    inputs = torch.randn(3, 2, size, size, generator=draws)
    assert_each_units_gradient(fused(name), inputs, [1, 2], 1e-3)


def test_the_head_is_what_gives_the_logits_on_both_sides() -> None:
    network = fused("cnn")
    state = network.state_dict()
    head = head_keys(network)
    assert {key.partition(".")[0] for key in head} == {"image", "covariates"}
    network.load_state_dict({k: torch.zeros_like(t) if k in head else t for k, t in state.items()})
    assert not network(images(16, [1.0, 0.0])).any()
