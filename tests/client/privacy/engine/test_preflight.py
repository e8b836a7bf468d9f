"""What is told before a private training is true."""

import pytest
import torch
from torch import Tensor, nn

from client.privacy.engine.preflight import Memory, WrongGradientError, memory_of, prove
from common.models.registry import MODELS, build_model
from tests.builders import study_from
from tests.client.privacy.engine.naive import assert_each_units_gradient

CPU = torch.device("cpu")
SIZES = {2: (64, 64), 3: (32, 32, 32)}
FAMILIES = [
    (name, axes)
    for name in MODELS
    for axes in (2, 3)
    if (name, axes) not in {("densenet121", 3), ("scattering", 3)}
]


def built(name: str, axes: int) -> nn.Module:
    data = {2: "slices", 3: "volumes"}[axes]
    task = "segmentation" if "unet" in name else "classification"
    return build_model(study_from(f"model={name}", f"data={data}", f"task={task}").model, 0)


@pytest.mark.parametrize(("name", "axes"), FAMILIES)
def test_every_model_of_the_registry_as_a_whole(name: str, axes: int) -> None:
    # In float64: next to zero a rectifier falls on either side by the rounding of float32.
    network = built(name, axes).double().eval()
    draws = torch.Generator().manual_seed(0)
    images = torch.randn(3, 1, *SIZES[axes], generator=draws, dtype=torch.float64)
    assert_each_units_gradient(network, images, [1, 2], 1e-6)


def test_a_proof_leaves_the_network_as_it_was() -> None:
    network = built("unet", 2)
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
