"""Laws of the wavelet features."""

import math
from contextlib import closing

import pytest
import torch

from client.privacy.engine.attach import Engine
from client.privacy.engine.preflight import prove
from common.models.registry import build_model
from common.models.scattering import Scattering, ScatteringConfig, gabor_filters
from tests.client.privacy.engine.naive import assert_each_units_gradient


def network(**changes: object) -> Scattering:
    model = build_model(ScatteringConfig(name="scattering", **changes), 0)  # type: ignore[arg-type]
    assert isinstance(model, Scattering)
    return model


def pictures(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("size", [(64, 64), (48, 80)])
@pytest.mark.parametrize("channels", [1, 3])
def test_an_image_of_any_size_has_features_of_norm_one(
    size: tuple[int, int], channels: int
) -> None:
    model = network(in_channels=channels)
    features = model.features(pictures(2, channels, *size))
    assert features.shape == (2, model.head.in_features)
    norms = features.norm(dim=1) / math.sqrt(channels)
    torch.testing.assert_close(norms, torch.ones(2), rtol=1e-3, atol=0)


def test_features_are_of_each_image_by_itself() -> None:
    model = network()
    images = pictures(3, 1, 32, 32)
    alone = torch.cat([model.features(image[None]) for image in images])
    torch.testing.assert_close(model.features(images), alone, rtol=1e-4, atol=1e-6)


def test_brightness_and_contrast_of_an_image_do_not_matter_to_its_wavelets() -> None:
    filters = gabor_filters(8, 4.0)
    flat = torch.full((1, 1, 32, 32), 7.0)
    inside = torch.nn.functional.conv2d(flat, filters)
    torch.testing.assert_close(inside, torch.zeros_like(inside), rtol=0, atol=1e-4)


@pytest.mark.parametrize("number", range(8))
def test_a_wave_is_answered_most_by_the_filter_of_its_direction(number: int) -> None:
    angle = math.pi * number / 8
    y, x = torch.meshgrid(torch.arange(33.0), torch.arange(33.0), indexing="ij")
    wave = torch.sin(2 * math.pi * (x * math.cos(angle) + y * math.sin(angle)) / 4.0)
    real, imaginary = torch.nn.functional.conv2d(wave[None, None], gabor_filters(8, 4.0)).chunk(
        2, 1
    )
    answers = (real**2 + imaginary**2).mean((0, 2, 3))
    assert int(answers.argmax()) == number


def test_each_patient_has_a_gradient() -> None:
    assert_each_units_gradient(
        network().double().eval(), pictures(3, 1, 32, 32).double(), [1, 2], 1e-6
    )
    prove(network(), (1, 32, 32), torch.device("cpu"))


def test_the_loss_of_a_private_training_falls() -> None:
    # Its one layer begins at 0, where every answer is as likely. Half of the images are stripes.
    model, stripes = network(), torch.sin(torch.arange(32.0)).expand(4, 1, 32, 32)
    images = torch.cat([pictures(4, 1, 32, 32), pictures(4, 1, 32, 32) + 3 * stripes])
    labels = torch.tensor([0] * 4 + [1] * 4)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    losses = []
    with closing(Engine(model)) as engine:
        for _ in range(30):
            with engine.recording([1] * len(images)) as tape:
                loss = torch.nn.functional.cross_entropy(model(images), labels)
                torch.autograd.backward(loss)
            for parameter, total in tape.clipped_sums(1.0).items():
                parameter.grad = total / len(images)
            optimizer.step()
            losses.append(float(loss.detach()))
    assert losses[0] == pytest.approx(math.log(2), rel=1e-5)
    assert losses[-1] < 0.9 * losses[0]


def test_only_the_linear_layer_is_trained_and_travels() -> None:
    assert sorted(network().state_dict()) == ["head.bias", "head.weight"]


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"spatial_dims": 3}, "model.spatial_dims=3"),
        ({"wavelength": 2.0}, "model.wavelength=2.0"),
        ({"octaves": 0}, "model.octaves=0"),
        ({"places": 0}, "model.places=0"),
        ({"dropout": 0.1}, "model.dropout=0.1"),
        ({"norm": "instance"}, "model.norm=instance"),
    ],
)
def test_a_setting_that_cannot_be_is_named(changes: dict[str, object], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        network(**changes)
