from dataclasses import replace
from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from client.training import random_part
from common.config import load_study
from common.models.deepmedic import DeepMedicConfig
from common.models.fit import check_fits
from common.models.registry import build_model
from common.segments import Around, part, seen_size, segments
from common.tasks.registry import build_task
from tests.common.models.tiny import tiny

CONFIG = DeepMedicConfig(name="deepmedic", channels=[4] * 4, dense=[6], factors=[1, 3])
CONFIG_3D = DeepMedicConfig(
    name="deepmedic", spatial_dims=3, channels=[3] * 2, dense=[4], factors=[1, 2]
)


BY_SEGMENTS = replace(CONFIG, segment=[9, 9])
BY_SEGMENTS_3D = replace(CONFIG_3D, segment=[4, 4, 4])


@settings(max_examples=25)
@given(st.data())
def test_what_training_finds_in_a_segment_is_what_the_whole_image_is_answered(
    data: st.DataObject,
) -> None:
    dims = data.draw(st.sampled_from([2, 3]))
    config = BY_SEGMENTS if dims == 2 else BY_SEGMENTS_3D
    network = build_model(config, seed=0)
    whole = [data.draw(st.integers(8, 60 if dims == 2 else 20)) for _ in range(dims)]
    size = [data.draw(st.integers(1, n)) for n in whole]
    draws = torch.Generator().manual_seed(data.draw(st.integers(0, 99)))
    image = torch.randn(1, 1, *whole, generator=draws)
    # The mask tells where the segment was.
    places = torch.arange(image.numel()).view(image.shape)
    around = Around(config.margin, config.grid)
    seen, found = segments(image, places, size, 0.0, draws, around)
    with torch.no_grad():
        inside = network.train()(seen)
        dense = network.eval()(image)[0].flatten(1)[:, found.flatten()]
    torch.testing.assert_close(inside[0].flatten(1), dense, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("config", [BY_SEGMENTS, BY_SEGMENTS_3D])
def test_segments_put_together_are_the_dense_answer(config: DeepMedicConfig) -> None:
    network = build_model(config, seed=0)
    assert config.segment is not None
    whole = [3 * n for n in config.segment]
    image = torch.randn(1, 1, *whole, generator=torch.Generator().manual_seed(0))
    stitched = torch.zeros(1, 2, *whole)
    around = Around(config.margin, config.grid)
    with torch.no_grad():
        dense = network.eval()(image)
        network.train()
        for start in product(*(range(0, 3 * n, n) for n in config.segment)):
            ends = [a + n for a, n in zip(start, config.segment, strict=True)]
            inside = (slice(None), slice(None), *map(slice, start, ends))
            seen = part(image[0], start, config.segment, around)
            stitched[inside] = network(seen[None])
    torch.testing.assert_close(stitched, dense, rtol=1e-4, atol=1e-5)


def test_the_experiment_trains_by_such_segments() -> None:
    study = load_study(["experiment=deepmedic"])
    assert isinstance(study.model, DeepMedicConfig)
    assert study.model.segment == study.data.segment == [34, 32, 34]
    check_fits(study)
    small = replace(study.model, channels=[2] * 8, dense=[2])
    network = build_model(small, seed=0)
    draws = torch.Generator().manual_seed(0)
    image = torch.randn(1, 1, *study.data.size, generator=draws)
    places = torch.arange(image.numel()).view(image.shape)
    seen, found = random_part(study, build_task(study.task), draws)(image, places)
    assert list(seen.shape[2:]) == seen_size(study)
    with torch.no_grad():
        dense = network.eval()(image)[0].flatten(1)[:, found.flatten()]
        inside = network.train()(seen)
    torch.testing.assert_close(inside[0].flatten(1), dense, rtol=1e-4, atol=1e-5)


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
