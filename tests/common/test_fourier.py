import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from common.fourier import low_amplitudes, mixed
from common.frequencies import HIGHEST, check_amplitudes, count_of
from common.seeding import generator

SHAPES = [(3, 2, 16, 12), (3, 1, 8, 6, 7)]


def images(shape: tuple[int, ...], seed: int = 0) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(size=shape)).float()


def spectrum(of: Tensor) -> Tensor:
    return torch.fft.fftn(of.double(), dim=list(range(2, of.ndim)))


def is_low(shape: tuple[int, ...]) -> Tensor:
    """Return which frequencies are low, by counting periods."""
    highest = HIGHEST[len(shape) - 2]
    along = [torch.fft.fftfreq(n, 1 / n).abs() <= highest for n in shape[2:]]
    low = along[0]
    for axis in along[1:]:
        low = low[..., None] & axis
    return low


@pytest.mark.parametrize("shape", SHAPES)
def test_low_amplitudes_are_the_spectrums_over_the_voxels(shape: tuple[int, ...]) -> None:
    of = images(shape)
    found = low_amplitudes(of)
    assert found.shape == (*shape[:2], count_of(len(shape) - 2))
    naive = spectrum(of)[..., is_low(shape)].abs() / of[0, 0].numel()
    torch.testing.assert_close(
        found.sort(-1).values.double(), naive.sort(-1).values, rtol=1e-4, atol=1e-6
    )
    assert bool((found.square().sum(-1) <= of.square().flatten(2).mean(-1) + 1e-6).all())


@pytest.mark.parametrize("shape", SHAPES)
@given(seed=st.integers(0, 100))
def test_mixing_keeps_every_phase_and_every_higher_frequency(
    shape: tuple[int, ...], seed: int
) -> None:
    of, low = images(shape, seed), is_low(shape)
    style = low_amplitudes(3 * images(shape, seed + 1)).mean((0, 1))[None]
    before, after = spectrum(of), spectrum(mixed(of, style, generator(seed)))
    torch.testing.assert_close(after[..., ~low], before[..., ~low], rtol=0, atol=1e-4)
    # No phase is turned: the spectra point the same way.
    along = (after * before.conj())[..., low]
    torch.testing.assert_close(
        along.imag / along.abs(), torch.zeros_like(along.imag), atol=1e-2, rtol=0
    )
    assert bool((along.real > 0).all())


def test_an_image_goes_a_share_of_the_way_to_one_of_the_styles() -> None:
    shape = SHAPES[0]
    of = images(shape)
    styles = torch.stack([low_amplitudes(scale * of).mean((0, 1)) for scale in (2.0, 5.0)])
    own, after = low_amplitudes(of), low_amplitudes(mixed(of, styles, generator(7)))
    found = []
    for image in range(len(of)):
        ways = [((after - own)[image] / (style - own[image])) for style in styles]
        # All but the mean, in the middle.
        ways = [torch.cat([way[..., :12], way[..., 13:]], -1) for way in ways]
        constant = [float(way.mean()) for way in ways if float(way.std()) < 1e-3]
        assert len(constant) == 1
        assert 0 <= constant[0] <= 1
        found.append(constant[0])
    assert len(set(found)) == len(of)


def test_the_mean_of_an_image_stays() -> None:
    of = images((4, 1, 16, 12))
    of = of - of.mean((2, 3), keepdim=True)
    style = torch.full((1, 25), 0.4)
    assert float(mixed(of, style, generator(2)).mean((2, 3)).abs().max()) < 1e-6


def test_an_images_own_amplitudes_leave_it_as_it_is() -> None:
    of = images((1, 1, 16, 12))
    style = low_amplitudes(of)[0]
    torch.testing.assert_close(mixed(of, style, generator(1)), of, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("amplitudes", "size", "told"),
    [
        ([], [16, 16], "0 sites"),
        ([[1.0] * 9], [16, 16], r"with \[9\] numbers, but 25"),
        ([[1.0] * 25], [16, 4], "has no room"),
    ],
)
def test_amplitudes_of_another_form_are_refused(
    amplitudes: list[list[float]], size: list[int], told: str
) -> None:
    with pytest.raises(ValueError, match=told):
        check_amplitudes(amplitudes, size)
    check_amplitudes([[1.0] * 25] * 2, [16, 16])
