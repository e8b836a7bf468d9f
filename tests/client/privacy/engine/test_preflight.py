"""What is told before a private training is true."""

import gc
import weakref
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from client.privacy.engine.attach import Engine
from client.privacy.engine.preflight import Memory, WrongGradientError, memory_of, prove
from common.models.deepmedic import DeepMedicConfig
from common.models.registry import build_model
from tests.client.privacy.engine.naive import assert_each_units_gradient
from tests.common.models.tiny import SMALLEST, size_for, tiny

CPU = torch.device("cpu")


@pytest.mark.parametrize("axes", [2, 3])
@pytest.mark.parametrize("name", SMALLEST)
def test_every_model_of_the_registry_as_a_whole(name: str, axes: int) -> None:
    # In float64: next to zero a rectifier falls on either side by the rounding of float32.
    network = build_model(tiny(name, axes), 0).double().eval()
    draws = torch.Generator().manual_seed(0)
    images = torch.randn(3, 1, *[size_for(name)] * axes, generator=draws, dtype=torch.float64)
    assert_each_units_gradient(network, images, [1, 2], 1e-6)


def test_a_proof_leaves_the_network_as_it_was() -> None:
    network = build_model(tiny("unet"), 0)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    prove(network, (1, 32, 32), CPU)
    assert network.training
    assert all(p.grad is None for p in network.parameters())
    for name, tensor in network.state_dict().items():
        torch.testing.assert_close(tensor, before[name], rtol=0, atol=0)


class Mixer(nn.Module):
    """Adds the mean of the batch to each image, as batch normalisation does."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(1, 2, 3)

    def forward(self, images: Tensor) -> Tensor:
        values: Tensor = self.layer(images)
        return values - values.mean(0, keepdim=True)


def test_a_network_that_mixes_the_images_of_a_batch_is_found() -> None:
    with pytest.raises(WrongGradientError, match="privacy=none"):
        prove(Mixer(), (1, 8, 8), CPU)


def test_private_training_keeps_the_images_own_gradients_besides() -> None:
    network = nn.Sequential(nn.Conv2d(1, 16, 3, padding=1), nn.PReLU(), nn.Conv2d(16, 8, 3))
    memory = memory_of(network, (1, 64, 64), CPU)
    weights = sum(p.numel() for p in network.parameters())
    assert memory.plain_bytes >= 4 * 16 * 64 * 64
    assert memory.private_bytes - memory.plain_bytes == pytest.approx(4 * weights, rel=0.05)


def test_the_pass_is_as_large_as_the_memory_allows_and_the_study_asks() -> None:
    memory = Memory(plain_bytes=80, private_bytes=100)
    assert memory.images(32, memory_bytes=10**6) == 32
    assert memory.images(32, memory_bytes=1000) == 5
    assert memory.images(32, memory_bytes=100) == 0


def test_what_is_proved_and_counted_has_the_depths_that_training_has() -> None:
    shape = (1, 16, 16)
    deep = build_model(tiny("dynunet"), 0)
    flat = build_model(replace(tiny("dynunet"), supervised_levels=0), 0)
    prove(deep, shape, CPU)
    assert memory_of(deep, shape, CPU).private_bytes > memory_of(flat, shape, CPU).private_bytes


@pytest.mark.parametrize("name", SMALLEST)
def test_a_private_pass_leaves_nothing_in_memory(name: str) -> None:
    network = build_model(tiny(name), 0)
    engine = Engine(network)
    images = torch.randn(4, 1, size_for(name), size_for(name))
    with engine.recording([1] * 4) as tape:
        answer = network(images)
        (answer if isinstance(answer, Tensor) else answer[0]).square().mean().backward()
    tape.clipped_sums(1.0)
    gone = weakref.ref(tape)
    del tape, answer
    gc.collect()
    # What PyTorch's graph and a tape hold of each other no collector finds.
    assert gone() is None


def test_a_network_by_segments_is_measured_as_it_trains() -> None:
    whole = DeepMedicConfig(name="deepmedic", channels=[2] * 4, dense=[2], factors=[1, 3])
    parts = replace(whole, segment=[3, 3])
    shape = (1, *[3 + 2 * parts.margin] * 2)
    bytes_of = [memory_of(build_model(of, 0), shape, CPU).plain_bytes for of in (parts, whole)]
    # Of the image with its margin the fine pathway takes a part.
    assert bytes_of[0] < bytes_of[1] / 3
    prove(build_model(parts, 0), shape, CPU)
