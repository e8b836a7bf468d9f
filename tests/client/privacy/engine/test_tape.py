"""Clipping: each unit's gradient is brought to the norm, then summed."""

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
