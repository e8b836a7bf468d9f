from collections.abc import Callable

import pytest
import torch
from torch import nn

from common.models.classifiers import CNNConfig, DenseNet121Config, ResNet18Config
from common.models.config import ModelConfig
from common.models.registry import build_model


def parameters(config: ModelConfig) -> int:
    return sum(p.numel() for p in build_model(config, seed=0).parameters())


def test_small_cnn_has_241_thousand_weights() -> None:
    convolutions = 9 * (1 * 32 + 32 * 64 + 64 * 128 + 128 * 128) + 352
    norms, head = 2 * 352, 128 * 2 + 2
    assert parameters(CNNConfig(name="cnn")) == convolutions + norms + head == 241_218


def test_resnet18_has_the_weights_of_the_paper() -> None:
    # torchvision's resnet18 has 11,689,512 with three input channels and 1000 classes.
    config = ResNet18Config(name="resnet18", in_channels=3, out_channels=1000)
    assert parameters(config) == 11_689_512


def test_densenet121_has_the_weights_of_the_paper() -> None:
    # torchvision's densenet121 has 7,978,856 with three input channels and 1000 classes.
    config = DenseNet121Config(name="densenet121", in_channels=3, out_channels=1000)
    assert parameters(config) == 7_978_856


def test_resnet_shortcuts_carry_the_gradient() -> None:
    # MONAI's option A takes the data of the shortcut, and with it the gradient ends.
    model = build_model(ResNet18Config(name="resnet18", channels=[4, 4, 6, 8]), seed=0)
    for key, module in model.named_modules():
        if isinstance(module, nn.Conv2d) and key.startswith("layer") and "downsample" not in key:
            nn.init.zeros_(module.weight)
    x = torch.randn(1, 1, 64, 64, requires_grad=True)
    torch.autograd.backward(model(x).sum())
    assert x.grad is not None
    assert x.grad.any()


def test_cnn_takes_images_of_any_size() -> None:
    model = build_model(CNNConfig(name="cnn", channels=[4, 6]), seed=0)
    assert model(torch.randn(2, 1, 17, 40)).shape == (2, 2)


@pytest.mark.parametrize(
    "config",
    [
        CNNConfig(name="cnn", channels=[4, 6], dropout=0.5),
        ResNet18Config(name="resnet18", channels=[4, 4, 6, 32], dropout=0.5),
        DenseNet121Config(
            name="densenet121", init_features=4, growth_rate=2, block_config=[1, 1], dropout=0.5
        ),
    ],
)
def test_dropout_acts_in_training_alone(config: ModelConfig) -> None:
    model = build_model(config, seed=0)
    x = torch.randn(1, 1, 64, 64)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        assert not torch.equal(model(x), model(x))
    model.eval()
    assert torch.equal(model(x), model(x))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: CNNConfig(name="cnn", channels=[]),
            r"channels=\[\] has 0 numbers; give 1 or more",
        ),
        (lambda: CNNConfig(name="cnn", channels=[4, -1]), r"channels\[1\]=-1 is not allowed"),
        (
            lambda: ResNet18Config(name="resnet18", channels=[4, 4]),
            r"channels=\[4, 4\] has 2 numbers; give 4",
        ),
        (lambda: DenseNet121Config(name="densenet121", growth_rate=0), r"growth_rate=0"),
        (lambda: DenseNet121Config(name="densenet121", init_features=0), r"init_features=0"),
        (lambda: DenseNet121Config(name="densenet121", block_config=[]), r"block_config=\[\]"),
    ],
)
def test_impossible_widths_are_refused(make: Callable[[], ModelConfig], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
