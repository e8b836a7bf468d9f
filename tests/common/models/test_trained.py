from contextlib import closing
from dataclasses import replace

import pytest
import torch

from client.privacy.engine.attach import Engine
from client.privacy.engine.preflight import prove
from common.models.layers import head_keys, norm_keys
from common.models.registry import build_model, model_config_type
from common.models.trained import LowRank, check_something_travels, frozen_names
from tests.client.privacy.engine.naive import assert_each_units_gradient
from tests.common.models.tiny import size_for, tiny

CPU = torch.device("cpu")


def built(**more: object) -> torch.nn.Module:
    return build_model(model_config_type("cnn")(name="cnn", channels=[8, 16], **more), seed=0)


def test_without_a_choice_everything_is_trained() -> None:
    assert not frozen_names(built())


def test_only_the_named_parts_are_trained() -> None:
    network = built(trained=["head", "norms"])
    free = {n for n, p in network.named_parameters() if p.requires_grad}
    assert free == set(dict(network.named_parameters())) - frozen_names(network)
    assert {n.rpartition(".")[2] for n in free} == {"weight", "bias"}
    assert all("conv" not in n for n in free)
    assert any("conv" in n for n in frozen_names(network))


def test_a_pattern_that_names_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match=r"trained has 'haed'"):
        built(trained=["haed"])


def test_a_low_rank_starts_as_the_layer_was_and_learns_a_matrix_of_that_rank() -> None:
    plain, low = built(), built(lora_rank=2)
    images = torch.randn(4, 1, 16, 16)
    torch.testing.assert_close(low(images), plain(images))
    weight = torch.randn(6, 4, 3, 3)
    added = LowRank(weight, 2)
    torch.nn.init.normal_(added.up)
    assert int(torch.linalg.matrix_rank((added(weight) - weight).flatten(1))) == 2
    with torch.no_grad():
        low.load_state_dict(
            {n: t + 1 if n.endswith(".up") else t for n, t in low.state_dict().items()}
        )
    assert not torch.allclose(low(images), plain(images))


def test_with_a_low_rank_only_the_small_matrices_and_the_head_are_trained() -> None:
    network = built(lora_rank=2)
    free = {n: p.numel() for n, p in network.named_parameters() if p.requires_grad}
    low = {n for n in free if n.rpartition(".")[2] in ("up", "down")}
    assert low
    assert {n.rpartition(".")[2] for n in set(free) - low} == {"weight", "bias"}
    assert sum(free.values()) < 0.5 * sum(p.numel() for p in network.parameters())


@pytest.mark.parametrize(
    "settings", [{"trained": ["head"]}, {"trained": ["norms", "head"]}, {"lora_rank": 2}]
)
def test_each_patient_has_a_gradient_of_its_own_of_what_is_trained(
    settings: dict[str, object],
) -> None:
    network = built(**settings).double().eval()
    # Off the start, where up is 0 and nothing of down would be seen.
    for name, parameter in network.named_parameters():
        if name.endswith(".up"):
            torch.nn.init.normal_(parameter)
    images = torch.randn(3, 1, 16, 16, dtype=torch.float64)
    assert_each_units_gradient(network, images, [1, 2], 1e-6)
    prove(built(**settings), (1, 16, 16), CPU)


def test_a_rank_that_makes_nothing_smaller_is_refused() -> None:
    with pytest.raises(ValueError, match="lora_rank=500"):
        built(lora_rank=500)


def test_a_transformer_learns_by_low_rank_too() -> None:
    config = tiny("vit")
    object.__setattr__(config, "lora_rank", 1)
    object.__setattr__(config, "hidden", 8)
    network = build_model(config, seed=0)
    assert [
        n for n, _ in network.named_parameters() if n.endswith("qkv.parametrizations.weight.0.up")
    ]
    prove(network, (1, 16, 16), CPU)


@pytest.mark.parametrize("name", ["cnn", "resnet18", "vit", "anfr"])
def test_what_is_not_trained_is_in_no_patients_norm(name: str) -> None:
    # A trained bias beside a frozen scale, of convolutions, norms and linear layers.
    network = build_model(replace(tiny(name), trained=["*bias"]), seed=0)
    images = torch.randn(3, 1, size_for(name), size_for(name))
    with closing(Engine(network)) as engine:
        with engine.recording([1, 1, 1]) as tape:
            network(images).square().sum().backward()
        found = tape.clipped_sums(1e-3)
    assert found
    assert all(parameter.requires_grad for parameter in found)


@pytest.mark.parametrize("settings", [{"standardised": True}, {}])
def test_a_frozen_layer_of_made_weights_trains_its_head_with_privacy(
    settings: dict[str, object],
) -> None:
    name = "cnn" if settings else "anfr"
    network = build_model(replace(tiny(name), trained=["head"], **settings), 0).double().eval()
    assert frozen_names(network)
    images = torch.randn(3, 1, 16, 16, dtype=torch.float64)
    assert_each_units_gradient(network, images, [1, 2], 1e-6)


def test_where_nothing_is_trained_or_nothing_travels_it_is_told() -> None:
    with pytest.raises(ValueError, match=r"trained=\[\] leaves nothing"):
        built(trained=[])
    network = built(trained=["head"], local=["head"])
    config = model_config_type("cnn")(name="cnn", trained=["head"], local=["head"])
    with pytest.raises(ValueError, match="nothing to be learned together"):
        check_something_travels(network, config)


def test_low_rank_and_standardised_weights_do_not_go_together() -> None:
    with pytest.raises(ValueError, match="weights are standardised"):
        built(lora_rank=2, standardised=True)
    with pytest.raises(ValueError, match="another model than anfr"):
        build_model(replace(tiny("anfr"), lora_rank=1), 0)


@pytest.mark.parametrize("name", ["dynunet", "residual_unet"])
def test_a_frozen_network_of_shared_blocks_sends_its_head_alone(name: str) -> None:
    network = build_model(replace(tiny(name), trained=["head"]), 0)
    free = set(network.state_dict()) - frozen_names(network)
    assert free == set(head_keys(network))


def test_the_norms_of_a_transformer_are_norms() -> None:
    network = build_model(tiny("vit"), 0)
    assert {n for n in norm_keys(network) if "norm1" in n}
