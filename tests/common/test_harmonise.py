import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from common.harmonise import matched, without_bias

SHAPES = [(48, 40), (20, 24, 18)]


def head(shape: tuple[int, ...], seed: int = 0) -> tuple[Tensor, Tensor]:
    """Return two tissues on a dark ground with some noise, [1, ...], and the tissues' numbers."""
    draws = np.random.default_rng(seed)
    places = np.meshgrid(*[np.linspace(-1, 1, n) for n in shape], indexing="ij")
    radius = np.sqrt(sum(place**2 for place in places))
    # Blocks, so that no smooth function tells the tissues apart.
    cells = sum((np.floor(5 * place).astype(int)) for place in places) % 2
    tissue = np.where(radius < 0.9, 1 + cells, 0)
    values = np.choose(tissue, [5.0, 100.0, 160.0]) * (1 + 0.03 * draws.normal(size=shape))
    return torch.from_numpy(values.astype(np.float32))[None], torch.from_numpy(tissue)[None]


def field(shape: tuple[int, ...], strength: float) -> Tensor:
    places = np.meshgrid(*[np.linspace(-1, 1, n) for n in shape], indexing="ij")
    log = strength * (places[0] + 0.5 * places[1] ** 2 - 0.5 * places[0] * places[-1])
    return torch.from_numpy(np.exp(log).astype(np.float32))[None]


def variation(image: Tensor, tissue: Tensor) -> float:
    """Return the mean coefficient of variation within the tissues."""
    inside = [image[tissue == number] for number in (1, 2)]
    return float(np.mean([float(values.std() / values.mean()) for values in inside]))


@pytest.mark.parametrize("shape", SHAPES)
def test_a_coils_field_is_taken_out(shape: tuple[int, ...]) -> None:
    image, tissue = head(shape)
    seen = image * field(shape, 0.35)
    found = without_bias(seen)
    clean, before = variation(image, tissue), variation(seen, tissue)
    assert before > 4 * clean
    assert variation(found, tissue) - clean < 0.25 * (before - clean)


@pytest.mark.parametrize("shape", SHAPES)
def test_an_image_without_a_field_stays_nearly_as_it_is(shape: tuple[int, ...]) -> None:
    image, tissue = head(shape)
    found = without_bias(image)
    ratio = (found / image)[tissue > 0]
    assert float(ratio.std()) < 0.02


@given(gain=st.floats(0.01, 1000.0))
def test_the_gain_of_a_scanner_passes_through(gain: float) -> None:
    image, _ = head((24, 20))
    found, scaled = without_bias(image), without_bias(gain * image)
    torch.testing.assert_close(scaled / gain, found, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    "image", [torch.zeros(1, 8, 8), torch.full((1, 8, 8), 7.0), -torch.rand(2, 8, 8)]
)
def test_where_there_is_no_tissue_nothing_is_changed(image: Tensor) -> None:
    assert torch.equal(without_bias(image), image)


def test_channels_are_looked_at_one_by_one() -> None:
    image, _ = head((24, 20))
    other, _ = head((24, 20), seed=1)
    both = without_bias(torch.cat([image, other]))
    assert torch.equal(both, torch.cat([without_bias(image), without_bias(other)]))


def test_a_matched_value_is_the_references_at_its_share() -> None:
    shares = torch.tensor([0.0, 0.25, 0.5, 1.0], dtype=torch.float64)
    assert matched(shares, [-1.0, 0.0, 4.0]).tolist() == [-1.0, -0.5, 0.0, 4.0]
