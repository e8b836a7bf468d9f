"""Laws that hold for every network that a study may ask for."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from opacus import GradSampleModule
from opacus.optimizers import DPOptimizer
from opacus.validators import ModuleValidator
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd
from torch.nn.utils.parametrize import is_parametrized

import configs
from client.privacy.engine.preflight import memory_of, prove
from common.models.attention_unet import AttentionUNetConfig
from common.models.classifiers import CNNConfig, DenseNet121Config, ResNet18Config
from common.models.config import ModelConfig
from common.models.layers import batch_norm_keys
from common.models.registry import MODELS, build_model, model_config_type
from common.models.scattering import ScatteringConfig
from common.models.unet import UNetConfig

SEGMENTERS = ("unet", "attention_unet")
NORMS = ("group", "instance")
LEARNED = sorted(set(MODELS) - {"scattering"})
"""Networks of learned layers with a norm between them."""
FAMILIES = pytest.mark.parametrize("name", LEARNED)
BOTH_DIMENSIONS = pytest.mark.parametrize("dims", [2, 3])


def tiny(name: str, dims: int = 2, norm: str = "group") -> ModelConfig:
    policy = "average" if norm == "batch" else None
    common: dict[str, Any] = {
        "name": name,
        "spatial_dims": dims,
        "norm": norm,
        "batch_norm_policy": policy,
    }
    smallest: dict[str, dict[str, Any]] = {
        "unet": {"channels": [4, 6], "strides": [2]},
        "attention_unet": {"channels": [4, 6], "strides": [2]},
        "cnn": {"channels": [4, 6]},
        "resnet18": {"channels": [4, 4, 6, 6]},
        "densenet121": {"init_features": 4, "growth_rate": 2, "block_config": [1, 2]},
    }
    # Two channels a group, so that a group norm is not an instance norm.
    return model_config_type(name)(**common, norm_groups=2, **smallest[name])


def images(dims: int, count: int = 3, size: int = 16, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, 1, *[size] * dims, generator=generator)


def loss_of(model: nn.Module, x: Tensor) -> Tensor:
    # Not symmetric in the logits, and the mean of the images' losses.
    logits = model(x)
    weights = torch.linspace(-1, 2, logits[0].numel()).view_as(logits[0])
    loss: Tensor = (logits * weights).pow(2).mean()
    return loss


def size_for(name: str, norm: str = "group") -> int:
    # An instance norm needs more than one voxel, and ResNet-18 shrinks an image 32-fold.
    return 64 if name == "resnet18" and norm == "instance" else 16


@BOTH_DIMENSIONS
@FAMILIES
def test_logits_are_per_voxel_or_per_image(name: str, dims: int) -> None:
    logits = build_model(tiny(name, dims), seed=0)(images(dims))
    assert logits.shape == ((3, 2, *[16] * dims) if name in SEGMENTERS else (3, 2))


@FAMILIES
def test_same_seed_gives_same_bytes(name: str) -> None:
    first, second = (build_model(tiny(name), seed=7).state_dict() for _ in range(2))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[key], second[key]) for key in first)


@FAMILIES
def test_different_seed_gives_different_weights(name: str) -> None:
    first, second = (build_model(tiny(name), seed=seed).state_dict() for seed in (1, 2))
    assert any(not torch.equal(first[key], second[key]) for key in first)


@FAMILIES
def test_building_leaves_the_default_generator_alone(name: str) -> None:
    before = torch.random.get_rng_state()
    build_model(tiny(name), seed=3)
    assert torch.equal(before, torch.random.get_rng_state())


@FAMILIES
def test_weights_do_not_depend_on_the_default_generator(name: str) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(11)
        first = build_model(tiny(name), seed=5).state_dict()
    second = build_model(tiny(name), seed=5).state_dict()
    assert all(torch.equal(first[key], second[key]) for key in first)


@FAMILIES
@pytest.mark.parametrize("norm", [*NORMS, "batch"])
def test_every_norm_is_the_one_asked_for(name: str, norm: str) -> None:
    kinds = {"group": nn.GroupNorm, "instance": nn.InstanceNorm2d, "batch": nn.BatchNorm2d}
    model = build_model(tiny(name, norm=norm), seed=0)
    found = {type(m) for m in model.modules() if "Norm" in type(m).__name__}
    assert found == {kinds[norm]}


@FAMILIES
def test_batch_norm_keys_are_empty_unless_asked(name: str) -> None:
    assert all(not batch_norm_keys(build_model(tiny(name, norm=norm), seed=0)) for norm in NORMS)
    assert batch_norm_keys(build_model(tiny(name, norm="batch"), seed=0))


@BOTH_DIMENSIONS
@FAMILIES
def test_nothing_works_in_place(name: str, dims: int) -> None:
    model = build_model(tiny(name, dims), seed=0)
    assert not [m for m in model.modules() if getattr(m, "inplace", False)]


@BOTH_DIMENSIONS
@FAMILIES
def test_every_parameter_gets_a_gradient(name: str, dims: int) -> None:
    model = build_model(tiny(name, dims), seed=0)
    torch.autograd.backward(loss_of(model, images(dims)))
    assert not [key for key, p in model.named_parameters() if p.grad is None]
    # A bias before a norm of one channel a group is cancelled by it; every weight counts.
    weights = {key: p.grad for key, p in model.named_parameters() if key.endswith("weight")}
    assert not [key for key, grad in weights.items() if grad is None or not grad.any()]


@BOTH_DIMENSIONS
@pytest.mark.parametrize("norm", NORMS)
@FAMILIES
def test_default_network_is_one_that_opacus_can_train(name: str, norm: str, dims: int) -> None:
    config = model_config_type(name)(name=name, spatial_dims=dims, norm=norm)
    assert ModuleValidator.validate(build_model(config, seed=0), strict=True) == []


@BOTH_DIMENSIONS
@pytest.mark.parametrize("norm", NORMS)
@FAMILIES
def test_private_step_moves_every_parameter(name: str, norm: str, dims: int) -> None:
    model = build_model(tiny(name, dims, norm), seed=0)
    before = [p.detach().clone() for p in model.parameters()]
    wrapped = GradSampleModule(model)
    optimizer = DPOptimizer(
        torch.optim.SGD(wrapped.parameters(), lr=0.1),
        noise_multiplier=1.0,
        max_grad_norm=1.0,
        expected_batch_size=2,
        generator=torch.Generator().manual_seed(0),
    )
    torch.autograd.backward(loss_of(wrapped, images(dims, count=2, size=size_for(name, norm))))
    optimizer.step()
    after = list(model.parameters())
    assert all(not torch.equal(old, new) for old, new in zip(before, after, strict=True))


@BOTH_DIMENSIONS
@pytest.mark.parametrize("norm", NORMS)
@FAMILIES
def test_per_sample_gradients_equal_the_naive_loop(name: str, norm: str, dims: int) -> None:
    x = images(dims, size=size_for(name, norm))
    plain, wrapped = (build_model(tiny(name, dims, norm), seed=0) for _ in range(2))
    torch.autograd.backward(loss_of(GradSampleModule(wrapped), x))
    for place in range(len(x)):
        plain.zero_grad()
        torch.autograd.backward(loss_of(plain, x[place : place + 1]))
        naive = [p.grad for p in plain.parameters() if p.grad is not None]
        largest = max(float(grad.abs().max()) for grad in naive)
        for one, p in zip(naive, wrapped.parameters(), strict=True):
            per_sample = p.grad_sample[place]  # type: ignore[attr-defined]
            torch.testing.assert_close(per_sample, one, rtol=1e-4, atol=1e-5 * largest)


@BOTH_DIMENSIONS
@FAMILIES
def test_a_standardised_network_has_a_gradient_of_each_patient(name: str, dims: int) -> None:
    model = build_model(replace(tiny(name, dims), standardised=True), seed=0)
    made = [m for m in model.modules() if is_parametrized(m, "weight")]
    assert made
    assert not [m for m in made if not isinstance(m, _ConvNd)]
    shape, device = (1, *[16] * dims), torch.device("cpu")
    prove(model, shape, device)
    assert memory_of(model, shape, device).private_bytes > 0


@FAMILIES
def test_yaml_validates(name: str) -> None:
    file = Path(str(configs.__file__)).parent / "model" / f"{name}.yaml"
    tree = OmegaConf.create(
        {
            "data": {"spatial_dims": 3, "channels": 1},
            "task": {"out_channels": 5},
            "model": OmegaConf.load(file),
        }
    )
    schema = OmegaConf.structured(model_config_type(name))
    # Resolved before the merge, which leaves the other groups behind.
    resolved = OmegaConf.to_container(tree.model, resolve=True)
    config = OmegaConf.to_object(OmegaConf.merge(schema, resolved))
    assert config == MODELS[name].config(name=name, spatial_dims=3, out_channels=5)
    assert set(OmegaConf.load(file)) == set(schema)


def test_every_yaml_is_of_a_network() -> None:
    folder = Path(str(configs.__file__)).parent / "model"
    assert {file.stem for file in folder.glob("*.yaml")} == set(MODELS)


def test_unknown_name_lists_the_known() -> None:
    with pytest.raises(ValueError, match=r"model.name='vit' is not known.*unet.*densenet121"):
        model_config_type("vit")


def test_settings_of_another_network_are_refused() -> None:
    with pytest.raises(ValueError, match=r"'unet' came with CNNConfig; .* UNetConfig"):
        build_model(CNNConfig(name="unet"), seed=0)


def test_each_network_has_settings_of_its_own() -> None:
    assert {family.config for family in MODELS.values()} == {
        UNetConfig,
        AttentionUNetConfig,
        CNNConfig,
        ResNet18Config,
        DenseNet121Config,
        ScatteringConfig,
    }
