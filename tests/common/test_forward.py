import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from common.forward import FORWARD, degraded, references
from common.forward_config import ForwardConfig
from common.seeding import generator

EACH = {
    "low_dose": ForwardConfig(name="low_dose", photons=50.0),
    "low_dose_ct": ForwardConfig(name="low_dose_ct", photons=1e4, views=24),
    "undersampled": ForwardConfig(name="undersampled", acceleration=4, centre=0.1),
    "downsampled": ForwardConfig(name="downsampled", factor=2),
}
ALL = pytest.mark.parametrize("config", EACH.values(), ids=EACH)


def images(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=generator(seed))


def test_every_forward_model_has_settings() -> None:
    assert set(EACH) == set(FORWARD)


@ALL
@pytest.mark.parametrize("shape", [(3, 1, 12, 16), (2, 1, 12, 16, 8)])
def test_the_grid_stays_and_the_same_draws_give_the_same_images(
    config: ForwardConfig, shape: tuple[int, ...]
) -> None:
    clean = images(*shape)
    first, second = (degraded(clean, config, generator(3)) for _ in range(2))
    assert first.shape == clean.shape
    assert torch.equal(first, second)
    assert not torch.equal(first, clean)
    assert len(degraded(clean[:0], config, generator(3))) == 0


@ALL
def test_what_a_network_is_measured_against_is_what_came_and_the_ways_back(
    config: ForwardConfig,
) -> None:
    arrived = degraded(images(1, 1, 12, 16), config, generator(0))
    found = references(arrived, config)
    assert len(found) == len(FORWARD[config.name].references)
    assert torch.equal(found[0], arrived.clamp(0, 1))


@given(photons=st.floats(20, 2000), brightness=st.floats(0.1, 1.0))
def test_the_noise_of_a_dose_has_the_mean_and_the_variance_of_counts(
    photons: float, brightness: float
) -> None:
    config = ForwardConfig(name="low_dose", photons=photons)
    seen = degraded(torch.full((1, 1, 100, 100), brightness), config, generator(1))
    expected = brightness / photons
    assert float(seen.mean()) == pytest.approx(brightness, abs=5 * (expected / 1e4) ** 0.5)
    assert float(seen.var()) == pytest.approx(expected, rel=0.1)


@given(acceleration=st.integers(2, 8), lines=st.integers(16, 40), seed=st.integers(0, 99))
def test_one_line_of_k_space_in_so_many_is_kept_and_the_others_are_zero(
    acceleration: int, lines: int, seed: int
) -> None:
    config = ForwardConfig(name="undersampled", acceleration=acceleration, centre=1 / 16)
    point = torch.zeros(1, 1, 8, lines)
    # Every line of a point's k-space has the same magnitude, so the energy counts the lines.
    point[0, 0, 4, lines // 2] = 1.0
    seen = degraded(point, config, generator(seed))
    assert float(seen.square().sum()) == pytest.approx(round(lines / acceleration) / lines)


@given(lines=st.integers(7, 65), centre=st.floats(0.01, 0.25), seed=st.integers(0, 99))
def test_waves_in_the_centre_of_k_space_pass_as_they_are(
    lines: int, centre: float, seed: int
) -> None:
    config = ForwardConfig(name="undersampled", acceleration=4, centre=centre)
    whole = max(1, round(lines * centre))
    places = torch.arange(lines) / lines
    # A wave has a line on each side of the middle; the wave of frequency 0 is a flat image.
    for frequency in range((whole - 1) // 2 + 1):
        wave = 0.5 + 0.3 * torch.cos(2 * torch.pi * frequency * places)
        image = wave.expand(1, 1, 4, lines)
        torch.testing.assert_close(degraded(image, config, generator(seed)), image)


def test_large_voxels_are_means_and_the_way_back_is_cubic_along_each_axis() -> None:
    clean = images(1, 1, 8, 12)
    small = F.avg_pool2d(clean, 2)
    plane = degraded(clean, EACH["downsampled"], generator(0))
    expected = F.interpolate(small, scale_factor=2, mode="bicubic", align_corners=False)
    torch.testing.assert_close(plane, expected)
    solid = clean[..., None].expand(-1, -1, -1, -1, 6)
    found = degraded(solid, EACH["downsampled"], generator(0))
    torch.testing.assert_close(found, plane[..., None].expand_as(found))


def squares() -> Tensor:
    clean = torch.zeros(1, 1, 32, 32)
    clean[..., 8:24, 8:24] = 0.8
    return clean


def test_non_local_means_takes_noise_away() -> None:
    clean = squares()
    arrived, without = references(degraded(clean, EACH["low_dose"], generator(0)), EACH["low_dose"])
    assert (without - clean).square().mean() < (arrived - clean).square().mean() / 2


def test_the_noise_of_a_ct_falls_with_the_photons_and_smoothing_takes_some_away() -> None:
    clean = squares()

    def error(photons: float) -> list[float]:
        config = ForwardConfig(name="low_dose_ct", photons=photons, views=48)
        found = references(degraded(clean, config, generator(0)), config)
        return [float((each - clean)[..., 12:20, 12:20].square().mean()) for each in found]

    many, few = error(1e7), error(1e4)
    assert many[0] < few[0] / 10
    # Smoothed by Hann's window, and by non-local means.
    assert max(few[1:]) < few[0] / 2


def test_slices_of_a_ct_are_scanned_each_by_itself() -> None:
    config = ForwardConfig(name="low_dose_ct", photons=1e9, views=24)
    solid = squares()[..., None] * torch.tensor([1.0, 0.5])
    found = degraded(solid, config, generator(0))
    for place, share in enumerate((1.0, 0.5)):
        alone = degraded(squares() * share, config, generator(1))
        torch.testing.assert_close(found[..., place], alone, atol=5e-3, rtol=0)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"name": "blurred"}, "task.forward.name='blurred' is not known"),
        ({"name": "low_dose"}, "task.forward.photons=None does not go with"),
        ({"name": "downsampled", "factor": 2, "photons": 1.0}, "photons=1.0 does not go with"),
        ({"name": "undersampled", "acceleration": 4, "centre": 0.5}, "task.forward.centre=0.5"),
    ],
)
def test_settings_that_do_not_fit_are_named(settings: dict[str, object], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        ForwardConfig(**settings)  # type: ignore[arg-type]
