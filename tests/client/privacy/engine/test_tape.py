"""Clipping: each unit's gradient is brought to the norm, then summed."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from tests.client.privacy.engine.naive import one_by_one, projected, recorded


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1),
        nn.GroupNorm(2, 4),
        nn.PReLU(),
        nn.Conv2d(4, 8, 3, stride=2),
        nn.Flatten(),
        nn.Linear(72, 3),
    )


@settings(max_examples=25)
@given(
    units=st.lists(st.integers(1, 4), min_size=1, max_size=5),
    max_norm=st.sampled_from([1e-3, 0.5, 3.0, 1e6]),
    seed=st.integers(0, 1000),
)
def test_the_sum_is_that_of_gradients_clipped_one_by_one(
    units: list[int], max_norm: float, seed: int
) -> None:
    model = network()
    images = torch.randn(sum(units), 1, 8, 8, generator=torch.Generator().manual_seed(seed))
    sums = recorded(model, images, units).clipped_sums(max_norm)
    found = torch.cat([sums[p].detach().flatten() for p in model.parameters()])
    naive = one_by_one(model, images, units, projected)
    expected = sum(g * min(1.0, max_norm / float(g.norm())) for g in naive)
    assert isinstance(expected, torch.Tensor)
    assert float((found - expected).norm()) <= 1e-4 * float(expected.norm()) + 1e-7
    assert float(found.norm()) <= len(units) * max_norm * (1 + 1e-5)


@pytest.mark.parametrize("bad", [float("inf"), float("nan"), 1e30])
def test_a_unit_whose_gradient_is_not_finite_counts_for_nothing(bad: float) -> None:
    model = network()
    images = torch.randn(5, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    spoiled = torch.cat([images[:2], torch.full_like(images[:1], bad), images[2:]])
    with_it = recorded(model, spoiled, [1, 1, 1, 2, 1]).clipped_sums(0.5)
    without = recorded(model, images, [1, 1, 2, 1]).clipped_sums(0.5)
    for parameter in model.parameters():
        assert with_it[parameter].isfinite().all()
    moved = torch.cat([(with_it[p] - without[p]).flatten() for p in model.parameters()])
    assert float(moved.norm()) <= 0.5 * (1 + 1e-4)


@pytest.mark.parametrize("size", [1.0, 1e4, 1e8, 1e12])
def test_terms_that_cancel_do_not_count_for_more_than_one_clip(size: float) -> None:
    # A large constant below a norm: the weight gradient of the layer between is a sum over places
    # of large terms whose true value is small, and whose rounding is not.
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.Conv2d(16, 64, 1), nn.GroupNorm(8, 64), nn.Flatten()
    )
    with torch.no_grad():
        model[0].bias.fill_(size)
    images = torch.randn(48, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    whole = recorded(model, images, [1] * 48).clipped_sums(1.0)
    for out in (0, 17, 47):
        kept = torch.cat([images[:out], images[out + 1 :]])
        rest = recorded(model, kept, [1] * 47).clipped_sums(1.0)
        moved = torch.cat([(whole[p] - rest[p]).flatten() for p in model.parameters()])
        assert float(moved.norm()) <= 1 + 1e-2
