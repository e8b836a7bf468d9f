from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from common.models.config import ModelConfig
from common.models.layers import (
    adapt,
    batch_norm_keys,
    group_count,
    head_keys,
    local_names,
    norm_layer,
)
from common.models.registry import MODELS, build_model
from tests.builders import study_from
from tests.common.models.tiny import tiny


@given(channels=st.integers(1, 300), largest=st.integers(1, 64))
def test_group_count_is_the_largest_divisor(channels: int, largest: int) -> None:
    count = group_count(channels, largest)
    assert channels % count == 0
    assert count <= largest
    assert not [n for n in range(count + 1, largest + 1) if n <= channels and channels % n == 0]


@pytest.mark.parametrize(("channels", "groups"), [(16, 8), (12, 6), (7, 7), (17, 1), (1, 1)])
def test_group_norm_divides_its_channels(channels: int, groups: int) -> None:
    layer = norm_layer(ModelConfig(name="any"), channels)
    assert isinstance(layer, nn.GroupNorm)
    assert (layer.num_groups, layer.num_channels) == (groups, channels)


@pytest.mark.parametrize("dims", [2, 3])
def test_instance_norm_learns_and_keeps_no_statistics(dims: int) -> None:
    layer = norm_layer(ModelConfig(name="any", norm="instance", spatial_dims=dims), 4)
    assert set(layer.state_dict()) == {"weight", "bias"}
    assert layer(torch.rand(1, 4, *[3] * dims)).shape == (1, 4, *[3] * dims)


def test_adapt_reaches_nested_layers() -> None:
    block = nn.Sequential(nn.BatchNorm2d(6), nn.ReLU(inplace=True))
    network = adapt(
        nn.Sequential(block, nn.Sequential(nn.InstanceNorm2d(6), nn.LeakyReLU(inplace=True))),
        ModelConfig(name="any"),
    )
    norms = [m for m in network.modules() if isinstance(m, nn.GroupNorm)]
    assert [(m.num_groups, m.num_channels) for m in norms] == [(6, 6), (6, 6)]
    x = torch.randn(2, 6, 4, 4)
    before = x.clone()
    network(x)
    assert torch.equal(x, before)


def test_batch_norm_keys_are_parameters_and_statistics() -> None:
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Sequential(nn.BatchNorm2d(4)), nn.GroupNorm(2, 4))
    assert batch_norm_keys(model) == {
        f"1.0.{key}"
        for key in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    }
    assert batch_norm_keys(model) <= set(model.state_dict())


def test_batch_norm_keys_of_a_lone_layer_have_no_prefix() -> None:
    layer = nn.BatchNorm3d(2)
    assert batch_norm_keys(layer) == set(layer.state_dict())


def network() -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Linear(2, 2))


def config(**settings: Any) -> ModelConfig:
    return ModelConfig(name="any", **settings)


def test_nothing_is_local_unless_asked() -> None:
    assert local_names(network(), config()) == frozenset()
    averaged = config(norm="batch", batch_norm_policy="average")
    assert local_names(network(), averaged) == frozenset()


def test_patterns_and_local_batch_norms_are_local_together() -> None:
    both = config(norm="batch", batch_norm_policy="local", local=["2.*"])
    expected = batch_norm_keys(network()) | {"2.weight", "2.bias"}
    assert local_names(network(), both) == expected


@pytest.mark.parametrize(
    ("local", "told"), [(["head.*"], "'head.*'.*0.weight"), (["*"], "keeps the whole network")]
)
def test_a_pattern_of_nothing_and_one_of_everything_are_refused(
    local: list[str], told: str
) -> None:
    with pytest.raises(ValueError, match=told):
        local_names(network(), config(local=local))


@pytest.mark.parametrize("name", MODELS)
def test_the_head_of_every_network_gives_its_logits(name: str) -> None:
    task = "segmentation" if name in ("unet", "attention_unet") else "classification"
    study = study_from(f"model={name}", f"task={task}")
    model = build_model(study.model, 0)
    head = head_keys(model)
    assert {len(model.state_dict()[key]) for key in head} == {study.task.out_channels}
    assert {key.rsplit(".", 1)[1] for key in head} == {"weight", "bias"}


@pytest.mark.parametrize("norm", ["group", "instance", "batch"])
def test_the_norms_are_all_norm_layers(norm: str) -> None:
    settings = config(norm=norm, batch_norm_policy="average" if norm == "batch" else None)
    model = nn.Sequential(nn.Conv2d(1, 4, 3), norm_layer(settings, 4), nn.Linear(4, 2))
    expected = {f"1.{key}" for key in model[1].state_dict()}
    assert local_names(model, replace(settings, local=["norms"])) == expected


def test_a_prior_without_statistics_to_weigh_is_refused() -> None:
    with pytest.raises(ValueError, match=r"test_time_prior=4 has no effect with model\.norm=group"):
        config(test_time_prior=4.0)


def test_a_head_whose_weight_is_made_of_others_is_the_whole_head() -> None:
    network = build_model(replace(tiny("unet"), standardised=True), seed=0)
    plain = build_model(tiny("unet"), seed=0)
    assert len(head_keys(network)) == len(head_keys(plain)) + 1
