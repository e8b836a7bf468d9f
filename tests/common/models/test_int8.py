from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from common.models.int8 import NETWORKS, Int8Error, quantised, read_int8, size_bytes, write_int8
from common.models.registry import build_model, model_config_type
from common.state import state_of
from tests.common.models.tiny import SMALLEST, size_for, tiny


def images(dims: int, count: int = 4) -> Tensor:
    return torch.randn(count, 1, *[16] * dims, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(("name", "dims"), [("cnn", 2), ("unet128", 2), ("unet", 2), ("cnn", 3)])
def test_the_network_in_int8_says_nearly_the_same_and_so_does_its_file(
    name: str, dims: int, tmp_path: Path
) -> None:
    network = build_model(tiny(name, dims), seed=0).eval()
    before, seen = state_of(network), images(dims)
    small, tensors = quantised(network, seen)
    with torch.no_grad():
        expected, found = network(seen), small(seen)
    spread = float(expected.std())
    assert float((found - expected).square().mean().sqrt()) < 0.15 * spread
    assert all(torch.equal(t, before[n]) for n, t in state_of(network).items())
    write_int8(tmp_path / "m.safetensors", tensors, {})
    other = build_model(tiny(name, dims), seed=9)
    again = read_int8(tmp_path / "m.safetensors", other, images(dims, 1))
    with torch.no_grad():
        torch.testing.assert_close(again(seen), found, rtol=0, atol=0.02 * spread)


def test_weights_are_a_quarter_of_the_bytes() -> None:
    network = nn.Sequential(nn.Conv2d(32, 64, 3), nn.ReLU(), nn.Conv2d(64, 2, 1))
    _, tensors = quantised(network, torch.randn(2, 32, 8, 8))
    whole = size_bytes(state_of(network))
    assert tensors["0.weight"].dtype == torch.int8
    # The last layer answers in as many digits as before.
    assert tensors["2.weight"].dtype == torch.float32
    assert whole / 4 < size_bytes(tensors) < whole / 3.5


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("name", SMALLEST)
def test_each_network_is_computed_in_int8_or_refused_with_those_that_are(
    name: str, dims: int
) -> None:
    network = build_model(tiny(name, dims), seed=0).eval()
    seen = torch.randn(2, 1, *[size_for(name)] * dims, generator=torch.manual_seed(0))
    if name in NETWORKS:
        small, tensors = quantised(network, seen)
        assert any(tensor.dtype == torch.int8 for tensor in tensors.values())
        with torch.no_grad():
            assert small(seen).shape == network(seen).shape
    else:
        with pytest.raises(Int8Error, match="unet128, attention_unet"):
            quantised(network, seen)


def test_a_network_of_a_last_layer_alone_is_refused() -> None:
    network = build_model(model_config_type("scattering")(name="scattering"), seed=0).eval()
    with pytest.raises(Int8Error, match="no layer but its last"):
        quantised(network, torch.randn(2, 1, 32, 32))


def test_a_network_whose_way_depends_on_its_values_is_refused() -> None:
    class Fickle(nn.Sequential):
        def forward(self, x: Tensor) -> Tensor:
            return x if x.sum() > 0 else -x

    with pytest.raises(Int8Error, match="cannot be drawn as a graph"):
        quantised(Fickle(nn.Linear(16, 16), nn.Linear(16, 2)), images(2))


def test_a_residual_network_adds_its_image_in_int8_too() -> None:
    config = replace(tiny("unet128"), out_channels=1, residual=True)
    network = build_model(config, seed=0).eval()
    small, _ = quantised(network, images(2))
    with torch.no_grad():
        # It begins with its image, and the last layer is not rounded.
        torch.testing.assert_close(small(images(2)), images(2))
