"""What standardised weights are, whatever the convolution."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from common.models.standardise import standardise

CONVOLUTIONS = [
    nn.Conv1d(4, 6, 3),
    nn.Conv2d(4, 6, 3),
    nn.Conv2d(4, 6, 3, groups=2),
    nn.Conv3d(2, 3, 3),
    nn.ConvTranspose2d(4, 6, 3),
    nn.ConvTranspose2d(4, 6, 3, groups=2),
    nn.ConvTranspose3d(2, 3, 2, stride=2),
]
KINDS = pytest.mark.parametrize("index", range(len(CONVOLUTIONS)))


def made(index: int) -> Any:
    layer: Any = CONVOLUTIONS[index]
    torch.manual_seed(index)
    fresh = type(layer)(
        layer.in_channels, layer.out_channels, layer.kernel_size, layer.stride, groups=layer.groups
    )
    return standardise(nn.Sequential(fresh))[0]


def weights_of_outputs(layer: Any) -> list[Tensor]:
    """Return the weights of each output, one after another, the naive way."""
    weight, groups = layer.weight.detach(), layer.groups
    if not layer.transposed:
        return [output.flatten() for output in weight]
    inputs = weight.chunk(groups)
    return [part[:, output].flatten() for part in inputs for output in range(part.shape[1])]


@KINDS
def test_weights_of_an_output_have_mean_0_and_the_gain_as_their_length(index: int) -> None:
    layer = made(index)
    gain = torch.linspace(0.5, 2, layer.out_channels)
    with torch.no_grad():
        layer.parametrizations.weight[0].gain.view(-1).copy_(gain)
    outputs = weights_of_outputs(layer)
    assert len(outputs) == layer.out_channels
    for weights, length in zip(outputs, gain, strict=True):
        assert float(weights.mean()) == pytest.approx(0, abs=1e-6)
        assert float(weights.norm()) == pytest.approx(float(length), rel=1e-3)


@KINDS
def test_scale_and_shift_of_the_raw_weights_change_nothing(index: int) -> None:
    layer = made(index)
    before = layer.weight.detach().clone()
    with torch.no_grad():
        raw = layer.parametrizations.weight.original
        raw.copy_(100 * raw + 3)
    torch.testing.assert_close(layer.weight, before, rtol=1e-2, atol=1e-3)


def test_a_convolution_with_one_weight_an_output_is_left_alone() -> None:
    layer = nn.Conv2d(1, 4, 1)
    before = layer.weight
    standardise(nn.Sequential(layer))
    assert layer.weight is before
    assert set(layer.state_dict()) == {"weight", "bias"}
