"""Laws that hold for every network that a study may ask for."""

from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd
from torch.nn.utils.parametrize import is_parametrized

import configs
from client.privacy.engine.attach import Engine, UnknownLayerError
from client.privacy.engine.preflight import memory_of, prove
from common.config import compose
from common.models.classifiers import CNNConfig
from common.models.layers import batch_norm_keys, head_keys
from common.models.registry import MODELS, build_model, model_config_type
from common.schema import typed
from tests.client.privacy.engine.naive import assert_each_units_gradient
from tests.common.models.tiny import size_for, tiny

CPU = torch.device("cpu")
SEGMENTERS = (
    "attention_unet",
    "deepmedic",
    "dynunet",
    "residual_unet",
    "unet",
    "unet128",
    "unet_plus_plus",
    "unetr",
)
NORMS = ("group", "instance")
LEARNED = sorted(set(MODELS) - {"scattering"})
"""Networks of learned layers."""
NORMED = sorted(set(LEARNED) - {"anfr", "deepmedic", "unetr", "vit"})
"""Those with a choice of norms, and no others, behind every convolution."""
FAMILIES = pytest.mark.parametrize("name", LEARNED)
WITH_NORMS = pytest.mark.parametrize("name", NORMED)
BOTH_DIMENSIONS = pytest.mark.parametrize("dims", [2, 3])


def images(dims: int, count: int = 3, size: int = 16, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, 1, *[size] * dims, generator=generator)


def loss_of(model: nn.Module, x: Tensor) -> Tensor:
    # Not symmetric in the logits, and the mean of the images' losses.
    logits = model(x)
    weights = torch.linspace(-1, 2, logits[0].numel()).view_as(logits[0])
    loss: Tensor = (logits * weights).pow(2).mean()
    return loss


@BOTH_DIMENSIONS
@FAMILIES
def test_logits_are_per_voxel_or_per_image(name: str, dims: int) -> None:
    size = size_for(name)
    logits = build_model(tiny(name, dims), seed=0).eval()(images(dims, size=size))
    assert logits.shape == ((3, 2, *[size] * dims) if name in SEGMENTERS else (3, 2))


@FAMILIES
def test_every_tensor_has_one_name(name: str) -> None:
    # Under a second name what is to stay at a site would leave it.
    model = build_model(tiny(name), seed=0)
    named = dict(model.named_parameters()) | dict(model.named_buffers())
    assert set(model.state_dict()) == set(named)
    assert len({id(tensor) for tensor in named.values()}) == len(named)


# Of unet the last layer adds to the logits that the one before it gives.
@pytest.mark.parametrize("name", sorted(set(LEARNED) - {"unet"}))
def test_the_head_is_what_gives_the_logits(name: str) -> None:
    model = build_model(tiny(name), seed=0).eval()
    state = model.state_dict()
    head = head_keys(model)
    model.load_state_dict({k: torch.zeros_like(t) if k in head else t for k, t in state.items()})
    with torch.no_grad():
        assert not model(images(2, size=size_for(name))).any()


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


@WITH_NORMS
@pytest.mark.parametrize("norm", [*NORMS, "batch"])
def test_every_norm_is_the_one_asked_for(name: str, norm: str) -> None:
    kinds = {"group": nn.GroupNorm, "instance": nn.InstanceNorm2d, "batch": nn.BatchNorm2d}
    model = build_model(tiny(name, norm=norm), seed=0)
    found = {type(m) for m in model.modules() if "Norm" in type(m).__name__}
    assert found == {kinds[norm]}


@WITH_NORMS
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
    torch.autograd.backward(loss_of(model, images(dims, size=size_for(name))))
    assert not [key for key, p in model.named_parameters() if p.grad is None]
    # A bias before a norm of one channel a group is cancelled by it; every weight counts.
    weights = {key: p.grad for key, p in model.named_parameters() if key.endswith("weight")}
    assert not [key for key, grad in weights.items() if grad is None or not grad.any()]


@WITH_NORMS
def test_the_gradient_of_each_patient_is_its_own_with_instance_norm_too(name: str) -> None:
    network = build_model(tiny(name, 2, "instance"), seed=0).double().eval()
    x = images(2, size=size_for(name, "instance")).double()
    assert_each_units_gradient(network, x, [1, 2], 1e-6)


@WITH_NORMS
def test_with_batch_norm_no_gradient_is_one_patients(name: str) -> None:
    model = build_model(tiny(name, norm="batch"), seed=0)
    with pytest.raises(UnknownLayerError, match="buffers"):
        prove(model, (1, *[size_for(name)] * 2), CPU)


@FAMILIES
def test_the_loss_of_a_private_training_falls(name: str) -> None:
    model = build_model(tiny(name), seed=0).train()
    x = images(2, count=8, size=size_for(name))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    losses = []
    with closing(Engine(model)) as engine:
        for _ in range(30):
            with engine.recording([1] * len(x)) as tape:
                loss = loss_of(model, x)
                torch.autograd.backward(loss)
            for parameter, total in tape.clipped_sums(1.0).items():
                parameter.grad = total / len(x)
            optimizer.step()
            losses.append(float(loss))
    assert losses[-1] < 0.9 * losses[0]


@BOTH_DIMENSIONS
@FAMILIES
def test_a_standardised_network_has_a_gradient_of_each_patient(name: str, dims: int) -> None:
    if name in ("anfr", "vit"):
        pytest.skip("always or never standardised")
    model = build_model(replace(tiny(name, dims), standardised=True), seed=0)
    made = [m for m in model.modules() if is_parametrized(m, "weight")]
    assert made
    assert not [m for m in made if not isinstance(m, _ConvNd)]
    shape = (1, *[size_for(name)] * dims)
    prove(model, shape, CPU)
    assert memory_of(model, shape, CPU).private_bytes > 0


@FAMILIES
def test_yaml_validates(name: str) -> None:
    file = Path(str(configs.__file__)).parent / "model" / f"{name}.yaml"
    size = ("data=volumes", "data.size=[32,32,32]")
    tree = compose([f"model={name}", *size, "task.out_channels=5"])
    schema = OmegaConf.structured(model_config_type(name))
    config = typed(tree.model, model_config_type(name), "model")
    sized = {"image_size": [32, 32, 32]} if name in ("vit", "unetr") else {}
    assert config == MODELS[name].config(name=name, spatial_dims=3, out_channels=5, **sized)
    assert set(OmegaConf.load(file)) == set(schema)


def test_every_yaml_is_of_a_network() -> None:
    folder = Path(str(configs.__file__)).parent / "model"
    assert {file.stem for file in folder.glob("*.yaml")} == set(MODELS)


def test_unknown_name_lists_the_known() -> None:
    with pytest.raises(ValueError, match=r"model.name='vitt' is not known.*unet.*densenet121"):
        model_config_type("vitt")


def test_settings_of_another_network_are_refused() -> None:
    with pytest.raises(ValueError, match=r"'unet' came with CNNConfig; .* UNetConfig"):
        build_model(CNNConfig(name="unet"), seed=0)


def test_each_network_has_settings_of_its_own() -> None:
    assert len({family.config for family in MODELS.values()}) == len(MODELS)


@pytest.mark.parametrize("name", SEGMENTERS)
def test_a_residual_network_begins_with_its_image_and_has_each_units_gradient(name: str) -> None:
    plain = {"num_res_units": 0} if name == "unet" else {}
    model = build_model(replace(tiny(name), out_channels=1, residual=True, **plain), seed=0)
    inputs = images(2, count=3, size=size_for(name))
    with torch.no_grad():
        answer = model.eval()(inputs)
        assert torch.equal(answer, inputs)
        for parameter in model.parameters():
            parameter.add_(0.1)
    assert_each_units_gradient(model.train(), inputs, [1, 2], 1e-3)


def test_a_network_whose_last_unit_adds_its_input_cannot_begin_with_its_image() -> None:
    with pytest.raises(ValueError, match=r"model.num_res_units=2 .* choose unet128"):
        replace(tiny("unet"), out_channels=1, residual=True)


def test_an_ensemble_is_so_many_of_the_networks_under_their_places() -> None:
    one = tiny("cnn")
    alone, all_three = build_model(one, 4), build_model(replace(one, members=3), 4)
    assert isinstance(all_three, nn.ModuleList)
    assert set(all_three.state_dict()) == {
        f"{place}.{name}" for place in range(3) for name in alone.state_dict()
    }
    with pytest.raises(ValueError, match=r"model\.members=0"):
        replace(one, members=0)
