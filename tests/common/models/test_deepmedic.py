import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from common.models.deepmedic import DeepMedicConfig, segment_of
from common.models.registry import build_model
from tests.common.models.tiny import tiny

CONFIG = DeepMedicConfig(name="deepmedic", channels=[4] * 4, dense=[6], factors=[1, 3])
CONFIG_3D = DeepMedicConfig(
    name="deepmedic", spatial_dims=3, channels=[3] * 2, dense=[4], factors=[1, 2]
)


@settings(max_examples=25)
@given(st.data())
def test_a_segment_alone_gets_the_logits_that_the_whole_image_gives_it(
    data: st.DataObject,
) -> None:
    dims = data.draw(st.sampled_from([2, 3]))
    config = CONFIG if dims == 2 else CONFIG_3D
    network = build_model(config, seed=0).eval()
    whole = [data.draw(st.integers(8, 60 if dims == 2 else 20)) for _ in range(dims)]
    size = [data.draw(st.integers(1, n)) for n in whole]
    start = [data.draw(st.integers(0, n - m)) for n, m in zip(whole, size, strict=True)]
    image = torch.randn(1, 1, *whole, generator=torch.Generator().manual_seed(0))
    part, places = segment_of(image, start, size, config)

    def inside(logits: torch.Tensor, at: list[int]) -> torch.Tensor:
        return logits[(..., *(slice(a, a + n) for a, n in zip(at, size, strict=True)))]

    with torch.no_grad():
        torch.testing.assert_close(
            inside(network(part), places), inside(network(image), start), rtol=1e-4, atol=1e-5
        )


def test_a_segment_far_from_the_rest_is_smaller_than_the_image() -> None:
    image = torch.zeros(1, 1, 200, 200)
    part, _ = segment_of(image, [90, 90], [9, 9], CONFIG)
    # Context on both sides, and less than a coarse voxel more at each.
    assert all(9 + 2 * CONFIG.context <= n <= 9 + 2 * CONFIG.context + 6 for n in part.shape[2:])


def test_what_lies_beyond_the_context_changes_nothing_and_what_lies_within_does() -> None:
    network = build_model(CONFIG, seed=0).eval()
    image = torch.zeros(1, 1, 60, 60)
    with torch.no_grad():
        before = network(image)[..., 40, 40]
        image[..., : 39 - CONFIG.context, :] = 9.0
        assert torch.equal(network(image)[..., 40, 40], before)
        image[..., 39, :] = 9.0
        assert not torch.equal(network(image)[..., 40, 40], before)


def test_statistics_over_the_image_are_refused() -> None:
    with pytest.raises(ValueError, match=r"norm=instance .* norm=group"):
        DeepMedicConfig(name="deepmedic", norm="instance")


def test_batch_norm_stands_behind_every_convolution_where_it_is_asked_for() -> None:
    kinds = {type(m).__name__ for m in build_model(tiny("deepmedic", norm="batch"), 0).modules()}
    assert "BatchNorm2d" in kinds
    assert "LayerNorm" not in kinds
