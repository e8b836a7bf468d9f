"""Each unit's gradient of every kind of layer is that of a backward pass of its own."""

import logging
from typing import Any

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.utils.parametrize import register_parametrization

from client.privacy.engine.attach import Engine, UnknownLayerError
from client.privacy.engine.convolution import Geometry, method_for
from client.privacy.engine.tape import Tape
from common.models.standardise import standardise
from tests.client.privacy.engine.naive import assert_each_units_gradient, recorded

FLOAT32 = 1e-5
UNITS = st.lists(st.integers(1, 3), min_size=1, max_size=4) | st.just([1] * 5)
CONVOLUTIONS = {
    (1, False): nn.Conv1d,
    (2, False): nn.Conv2d,
    (3, False): nn.Conv3d,
    (1, True): nn.ConvTranspose1d,
    (2, True): nn.ConvTranspose2d,
    (3, True): nn.ConvTranspose3d,
}


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@settings(max_examples=120)
@given(
    axes=st.integers(1, 3),
    transposed=st.booleans(),
    units=UNITS,
    channels=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    groups=st.integers(1, 2),
    size=st.integers(5, 9),
    kernel=st.integers(1, 3),
    stride=st.integers(1, 2),
    dilation=st.integers(1, 2),
    padding=st.integers(0, 1) | st.sampled_from(["same", "valid"]),
    mode=st.sampled_from(["zeros", "reflect", "circular"]),
    bias=st.booleans(),
    standardised=st.booleans(),
)
def test_convolutions_of_any_shape(
    axes: int,
    transposed: bool,
    units: list[int],
    channels: tuple[int, int],
    groups: int,
    size: int,
    kernel: int,
    stride: int,
    dilation: int,
    padding: int | str,
    mode: str,
    bias: bool,
    standardised: bool,
) -> None:
    more: dict[str, Any] = {"padding": padding, "padding_mode": mode}
    if transposed:
        assume(isinstance(padding, int) and mode == "zeros")
        more["output_padding"] = min(stride, 2) - 1
    assume(padding != "same" or stride == 1)
    inside, outside = (groups * count for count in channels)
    torch.manual_seed(0)
    layer = CONVOLUTIONS[axes, transposed](
        inside, outside, kernel, stride, dilation=dilation, groups=groups, bias=bias, **more
    )
    network = nn.Sequential(layer)
    images = random(sum(units), inside, *[size] * axes)
    if standardised:
        network = standardise(network)
    # In float64: a few weights that are almost equal, or one whose gradient happens to be near 0,
    # leave no digits in float32, naively too.
    assert_each_units_gradient(network.double(), images.double(), units, FLOAT32)


@pytest.mark.parametrize(
    ("layer", "size", "method"),
    [
        (nn.Conv2d(16, 32, 3, padding=1), 4, "ghost"),
        (nn.Conv2d(3, 512, 3, padding=1), 8, "ghost"),
        (nn.Conv3d(4, 8, 3, padding=1), 3, "ghost"),
        (nn.Conv2d(16, 16, 3, padding=1), 12, "grouped"),
        (nn.Conv3d(8, 8, 3, padding=1), 12, "grouped"),
        (nn.ConvTranspose2d(8, 4, 2, 2), 12, "grouped"),
        (nn.Conv2d(4, 4, 3, padding=1), 64, "call"),
        (nn.Conv2d(256, 256, 3, padding=1), 12, "call"),
    ],
)
def test_every_method_agrees_with_the_naive_loop(layer: Any, size: int, method: str) -> None:
    images = random(4, layer.in_channels, *[size] * len(layer.stride))
    outputs = layer(images)
    tape = Tape([1] * 4)
    tape.use(layer.weight)
    transposed = layer.transposed
    geometry = Geometry(
        stride=layer.stride,
        padding=layer.padding,
        dilation=layer.dilation,
        transposed=transposed,
        output_padding=layer.output_padding,
        groups=1,
    )
    assert method_for(tape, layer.weight, outputs, images, geometry) == method
    assert_each_units_gradient(nn.Sequential(layer), images, [1] * 4, FLOAT32)


@pytest.mark.parametrize(
    ("network", "shape"),
    [
        (nn.Linear(5, 3), (5,)),
        (nn.Linear(5, 3, bias=False), (4, 5)),
        (nn.Linear(64, 64), (7, 64)),
        (nn.Linear(2, 3), (3, 4, 2)),
        (nn.GroupNorm(2, 6), (6, 5, 4)),
        (nn.GroupNorm(3, 6), (6, 5)),
        (nn.InstanceNorm1d(3, affine=True), (3, 8)),
        (nn.InstanceNorm2d(3, affine=True), (3, 5, 4)),
        (nn.InstanceNorm3d(2, affine=True), (2, 4, 3, 5)),
        (nn.LayerNorm(6), (6,)),
        (nn.LayerNorm([4, 6], bias=False), (3, 4, 6)),
        (nn.PReLU(), (3, 5, 4)),
        (nn.PReLU(3), (3, 5, 4)),
        (nn.PReLU(3), (3,)),
        (nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 4)), (4,)),
    ],
)
@pytest.mark.parametrize("units", [[1, 1, 1, 1], [2, 2], [1, 3, 2], [3]])
def test_dense_layers_and_norms(
    network: nn.Module, shape: tuple[int, ...], units: list[int]
) -> None:
    # Behind one linear map: the loss alone would leave a scale without a gradient.
    assert_each_units_gradient(nn.Sequential(network), random(sum(units), *shape), units, FLOAT32)


class Tokens(nn.Module):
    """Embedding, position and class token as bare parameters, attention: a small transformer."""

    def __init__(self, features: int = 8) -> None:
        super().__init__()
        self.words = nn.Embedding(10, features, padding_idx=0)
        self.places = nn.Parameter(random(1, 5, features))
        self.token = nn.Parameter(random(1, 1, features, seed=1))
        self.attention = nn.MultiheadAttention(features, 2, batch_first=True)
        self.head = nn.Linear(features, 3)

    def forward(self, words_BT: Tensor) -> Tensor:
        values = self.words(words_BT) + self.places
        values = torch.cat([self.token.expand(len(values), -1, -1), values], 1)
        mask = torch.zeros(6, 6, dtype=torch.bool)
        mask[0, 2] = True
        found, _ = self.attention(values, values[:, 1:], values[:, 1:], attn_mask=mask[:, 1:])
        return self.head(found[:, 0])


@pytest.mark.parametrize("units", [[1] * 6, [2, 4], [1, 3, 2]])
def test_embeddings_bare_parameters_and_attention(units: list[int]) -> None:
    torch.manual_seed(0)
    words = torch.randint(10, (sum(units), 5), generator=torch.Generator().manual_seed(0))
    assert_each_units_gradient(Tokens(), words, units, FLOAT32)


@pytest.mark.parametrize("padded", [True, False])
def test_attention_gives_what_pytorch_gives(padded: bool) -> None:
    layer = nn.MultiheadAttention(8, 2, batch_first=True)
    query, key = random(3, 4, 8), random(3, 4, 8, seed=1)
    mask = torch.tensor([[False, False, True, True]] * 3) if padded else None
    expected = layer(query, key, key, key_padding_mask=mask)
    with Engine(layer).recording([1] * 3):
        found = layer(query, key, key, key_padding_mask=mask)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_attention_with_the_batch_behind_is_refused() -> None:
    # Of two layouts the rows cannot be told apart by shape, and Opacus takes one input.
    layer = nn.MultiheadAttention(8, 2)
    query = random(4, 3, 8)
    with Engine(layer).recording([1] * 3), pytest.raises(UnknownLayerError, match="privacy=none"):
        layer(query, query, query)


def test_a_layer_used_twice_adds_both_gradients() -> None:
    layer = nn.Linear(4, 4)
    assert_each_units_gradient(
        nn.Sequential(layer, nn.Tanh(), layer), random(4, 4), [1, 1, 2], FLOAT32
    )


class Scale(nn.Module):
    """A parameter of its own that no rule knows."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(random(4))

    def forward(self, values: Tensor) -> Tensor:
        return values * self.scale


def test_what_has_no_rule_goes_by_opacus_and_the_log_says_so(
    caplog: pytest.LogCaptureFixture,
) -> None:
    network = nn.Sequential(nn.Linear(3, 4), Scale(), nn.Linear(4, 2))
    with caplog.at_level(logging.WARNING):
        assert_each_units_gradient(network, random(4, 3), [1, 1, 2], FLOAT32)
    assert "no rule for the gradients of 1 (Scale)" in caplog.text


def test_a_layer_with_buffers_and_no_rule_is_refused_in_words() -> None:
    with pytest.raises(UnknownLayerError, match=r"BatchNorm2d has no rule .* privacy=none"):
        Engine(nn.BatchNorm2d(3))


def test_a_standardised_layer_used_twice_adds_both_gradients() -> None:
    layer = nn.Conv2d(2, 2, 3, padding=1)
    network = standardise(nn.Sequential(layer, nn.Tanh(), layer))
    assert_each_units_gradient(network, random(4, 2, 3, 3), [1, 1, 2], FLOAT32)


def test_of_a_made_weight_what_is_frozen_has_no_gradient() -> None:
    network = standardise(nn.Sequential(nn.Conv2d(1, 2, 3)))
    weight = network[0].parametrizations.weight.original.requires_grad_(False)
    gain = network[0].parametrizations.weight[0].gain
    sums = recorded(network, random(2, 1, 5, 5), [1, 1]).clipped_sums(1.0)
    assert (weight in sums, gain in sums) == (False, True)


def test_made_weights_of_a_layer_without_a_rule_are_refused_in_words() -> None:
    layer = nn.Bilinear(2, 2, 2)
    register_parametrization(layer, "weight", nn.PReLU())
    with pytest.raises(UnknownLayerError, match="made from other parameters"):
        Engine(layer)


def test_frozen_parameters_have_no_gradient_and_others_are_right() -> None:
    network = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
    network[0].weight.requires_grad_(False)
    tape = recorded(network, random(3, 3), [1, 1, 1])
    assert network[0].weight not in tape.clipped_sums(1.0)
    assert network[0].bias in tape.clipped_sums(1.0)


def test_a_closed_engine_leaves_the_network_as_it_was() -> None:
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.PReLU(), Scale())
    before = [dict(module.__dict__) for module in network.modules()]
    Engine(network).close()
    assert [dict(module.__dict__) for module in network.modules()] == before


def test_no_batch_gradient_of_the_weights_is_made() -> None:
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.GroupNorm(1, 2), nn.PReLU())
    recorded(network, random(2, 1, 6, 6), [1, 1])
    assert all(p.grad is None for p in network.parameters())


@pytest.mark.parametrize("standardised", [False, True])
@pytest.mark.parametrize(
    "device",
    [
        "cpu",
        pytest.param(
            "cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
        ),
    ],
)
def test_under_mixed_precision_the_gradients_are_those_of_mixed_precision(
    device: str, standardised: bool
) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1),
        nn.GroupNorm(2, 8),
        nn.PReLU(),
        nn.Conv2d(8, 16, 3, stride=4),
        nn.InstanceNorm2d(16, affine=True),
        nn.Flatten(),
        nn.Linear(64, 3),
    )
    network = (standardise(network) if standardised else network).to(device)
    images = random(4, 1, 8, 8).to(device)

    def loss(inputs: Tensor) -> Tensor:
        with torch.autocast(device, dtype=torch.bfloat16):
            outputs = network(inputs)
        return torch.sin(outputs.float()).sum(1).mean()

    with Engine(network).recording([1] * 4) as tape:
        loss(images).backward()
    sums = tape.clipped_sums(1.0)
    assert all(sums[p].dtype == torch.float32 for p in network.parameters())
    found = torch.cat([tape.gradients(p).flatten(1) for p in network.parameters()], dim=1) * 4
    for unit in range(4):
        network.zero_grad()
        loss(images[unit : unit + 1]).backward()
        naive = torch.cat([p.grad.flatten() for p in network.parameters() if p.grad is not None])
        # bfloat16 has 8 bits: two ways to the same number differ in the third digit.
        assert float((found[unit].detach() - naive).norm()) <= 0.03 * float(naive.norm())
