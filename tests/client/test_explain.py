"""Laws of the maps, on networks whose answer is known."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from client.explain import (
    METHODS,
    Asked,
    Explained,
    PerImage,
    alike,
    attention_rollout,
    explained,
    explainers_of,
    target_layer,
)
from client.explanations import verdict_of
from common.models.registry import build_model
from common.models.transformers import ViTConfig
from tests.common.models.tiny import tiny

PLACE = (slice(10, 13), slice(3, 6), slice(7, 10))


class Bright(nn.Module):
    """Says class 1 where there is brightness, by one convolution."""

    def __init__(self, factor: float = 1.0, dims: int = 2) -> None:
        super().__init__()
        self.look = (nn.Conv2d if dims == 2 else nn.Conv3d)(1, 1, 3, padding=1, bias=False)
        self.factor = factor
        nn.init.constant_(self.look.weight, 1.0)

    def forward(self, images: Tensor) -> Tensor:
        seen = torch.relu(self.look(images) - 4.0).flatten(2).mean(2)
        return torch.cat([-seen, seen], 1) * self.factor


def bright_image(dims: int = 2) -> Tensor:
    image = torch.zeros(1, 1, *[16] * dims)
    image[0, 0][PLACE[:dims]] = 1.0
    return image


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize(
    "method",
    ["grad_cam", "grad_cam_pp", "saliency", "integrated_gradients", "occlusion", "lime"],
)
def test_every_map_points_at_what_decides(method: str, dims: int) -> None:
    lesion = torch.zeros([16] * dims, dtype=torch.bool)
    lesion[tuple(slice(a.start - 1, a.stop + 1) for a in PLACE[:dims])] = True
    asked = Asked(Bright(dims=dims).eval(), bright_image(dims), 1)
    found = explained(method, asked, Bright(0.5, dims).eval(), lesion)
    assert found.map_S.shape == (16,) * dims
    assert found.hit


def vit_of(dims: int) -> nn.Module:
    config = tiny("vit", dims)
    assert isinstance(config, ViTConfig)
    return build_model(replace(config, image_size=[32] * dims), 0).eval()


def attentive_vit(dims: int) -> nn.Module:
    """Return a transformer whose class token looks at bright patches, and keeps what it has.

    Of four features the first two are a patch's brightness and its opposite, the last two are the
    class token's own.
    """
    network = vit_of(dims)
    for name, parameter in network.named_parameters():
        if not (".norm" in name and name.endswith("weight")):
            nn.init.zeros_(parameter)
    vit: Any = network.get_submodule("vit")
    with torch.no_grad():
        vit.cls_token[..., 2:] = torch.tensor([1.0, -1.0])
        embedding = vit.patch_embedding.patch_embeddings.weight
        embedding[:2] = torch.tensor([1.0, -1.0]).view(2, *[1] * (embedding.ndim - 1))
        for block in vit.blocks:
            queries, keys, _ = block.attn.qkv.weight.chunk(3)
            queries[::2, 2], keys[::2, 0] = 3.0, 3.0
    return network


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("at", [(0, 3, 1), (2, 2, 3), (3, 0, 0)])
def test_the_rollout_points_at_the_patch_that_the_class_token_looks_at(
    at: tuple[int, ...], dims: int
) -> None:
    patch = tuple(slice(8 * n, 8 * n + 8) for n in at[:dims])
    image = torch.zeros(1, 1, *[32] * dims)
    image[0, 0][patch] = 1.0
    lesion = image[0, 0] > 0
    asked = Asked(attentive_vit(dims), image, 1)
    found = explained("attention_rollout", asked, vit_of(dims), lesion)
    assert found.map_S.shape == (32,) * dims
    assert found.hit
    # An attention that sees nothing of the image would look at each patch as much.
    share = found.map_S[patch].sum() / found.map_S.sum()
    assert share > 3 * float(lesion.float().mean())


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("at", [(2, 3, 5), (11, 9, 4), (5, 12, 12)])
def test_the_gates_point_at_what_they_let_through(at: tuple[int, ...], dims: int) -> None:
    network = build_model(tiny("attention_unet", dims), 0).eval()
    # Every layer adds up what is bright around a voxel, so the gates open there.
    for parameter in network.parameters():
        nn.init.constant_(parameter, 1.0 if parameter.ndim == 1 else 1 / parameter[0].numel())
    lesion = torch.zeros([16] * dims, dtype=torch.bool)
    lesion[tuple(slice(n - 2, n + 3) for n in at[:dims])] = True
    image = torch.zeros(1, 1, *[16] * dims)
    image[(0, 0, *at[:dims])] = 1.0
    asked = Asked(network, image, 1)
    found = explained(
        "attention_gates", asked, build_model(tiny("attention_unet", dims), 0), lesion
    )
    assert found.map_S.shape == (16,) * dims
    assert found.hit


@pytest.mark.parametrize("name", ["unet", "deepmedic", "cnn"])
def test_every_method_explains_a_volume(name: str) -> None:
    network = build_model(tiny(name, 3), 0).eval()
    asked = Asked(network, torch.randn(1, 1, 8, 8, 8), 1)
    for method, explainer in explainers_of(network).items():
        found = explainer(asked)
        assert found.shape == (8, 8, 8), method
        assert found.isfinite().all(), method


def test_integrated_gradients_add_up_to_the_score() -> None:
    # Completeness (Sundararajan et al., 2017, Prop. 1).
    network = build_model(tiny("cnn"), 0).eval()
    image = torch.randn(1, 1, 16, 16, generator=torch.Generator().manual_seed(1))
    asked = Asked(network, image, 1)
    found = explainers_of(network)["integrated_gradients"](asked)
    with torch.no_grad():
        expected = (network(image) - network(torch.zeros_like(image)))[0, 1]
    assert float(found.sum()) == pytest.approx(float(expected), rel=0.1)


def test_saliency_is_the_gradient() -> None:
    network = build_model(tiny("cnn"), 0).eval()
    image = torch.randn(1, 1, 16, 16).requires_grad_()
    network(image)[0, 1].backward()
    found = explainers_of(network)["saliency"](Asked(network, image.detach(), 1))
    assert image.grad is not None
    torch.testing.assert_close(found, image.grad[0, 0].abs())


def test_rollout_of_attention_that_sees_all_alike_is_flat() -> None:
    network = build_model(tiny("vit"), 0).eval()
    for name, parameter in network.named_parameters():
        if ".qkv." in name:
            nn.init.zeros_(parameter)
    found = attention_rollout(Asked(network, torch.randn(1, 1, 16, 16), 1))
    assert float(found.max() - found.min()) < 1e-6


def test_of_a_segmentation_the_score_is_the_mean_logit_where_the_class_is_found() -> None:
    network = build_model(tiny("unet"), 0).eval()
    image = torch.randn(1, 1, 16, 16)
    with torch.no_grad():
        logits = network(image)
        scores = PerImage(network, image)(image)
    for k in range(2):
        where = logits.argmax(1) == k
        where = where if where.any() else torch.ones_like(where)
        assert float(scores[0, k]) == pytest.approx(float(logits[:, k][where].mean()), rel=1e-5)


def test_of_one_output_the_class_has_the_score_of_its_sigmoid() -> None:
    network = build_model(replace(tiny("unet128"), out_channels=1), 0).eval()
    image = torch.randn(1, 1, 16, 16)
    with torch.no_grad():
        z = network(image)
        scores = PerImage(network, image)(image)
    assert scores.shape == (1, 2)
    assert 0 < float((z > 0).float().mean()) < 1
    assert float(scores[0, 1]) == pytest.approx(float(z[z > 0].mean()), rel=1e-5)


@pytest.mark.parametrize("name", ["unet", "attention_unet", "vit", "cnn", "scattering"])
def test_each_network_has_the_methods_that_fit_it(name: str) -> None:
    from common.models.registry import model_config_type

    config = tiny(name) if name != "scattering" else model_config_type(name)(name=name)
    network = build_model(config, 0)
    found = set(explainers_of(network))
    assert found <= set(METHODS)
    assert ("attention_rollout" in found) == (name == "vit")
    assert ("attention_gates" in found) == (name == "attention_unet")
    assert ("grad_cam" in found) == (name not in ("vit", "scattering"))


@pytest.mark.parametrize(
    ("name", "part"),
    [("densenet121", "norm5"), ("unet", "model.1"), ("deepmedic", "dense"), ("vit", None)],
)
def test_the_maps_are_of_the_last_layer_that_runs_with_more_channels_than_classes(
    name: str, part: str | None
) -> None:
    network = build_model(tiny(name), 0).eval()
    layer = target_layer(Asked(network, torch.randn(1, 1, 16, 16), 1))
    assert (layer is None) if part is None else (layer is not None and part in layer)


def test_gates_are_between_nothing_and_all() -> None:
    network = build_model(tiny("attention_unet"), 0).eval()
    asked = Asked(network, torch.randn(1, 1, 16, 16), 1)
    found = explainers_of(network)["attention_gates"](asked)
    assert found.shape == (16, 16)
    assert 0 <= float(found.min()) <= float(found.max()) <= 1


def test_a_map_is_called_out_by_the_same_network_without_training() -> None:
    class Elsewhere(Bright):
        def forward(self, images: Tensor) -> Tensor:
            seen = self.look(images + 1)[..., :5, 9:].mean((2, 3))
            return torch.cat([-seen, seen], 1)

    asked = Asked(Bright().eval(), bright_image(), 1)
    # Half as sure at the same place is a map of the image; another place is something learned.
    same = explained("saliency", asked, Bright(0.5).eval(), None)
    assert same.alike == pytest.approx(1.0)
    assert verdict_of(same) == "the same without training!"
    other = explained("saliency", asked, Elsewhere().eval(), None)
    assert other.trusted
    assert verdict_of(other) == ""


def test_a_map_that_does_not_depend_on_what_was_learned_is_told_by_ranks() -> None:
    draws = np.random.default_rng(0)
    image = draws.normal(size=(16, 16))
    assert alike(image, 3 * image) == pytest.approx(1.0)
    assert alike(image, -image) == pytest.approx(1.0)
    other = alike(image, draws.normal(size=(16, 16)))
    assert other is not None
    assert abs(other) < 0.3
    assert alike(image, np.zeros((16, 16))) is None

    def of(value: float | None) -> Any:
        return Explained(method="x", map_S=image, alike=value, hit=None)

    assert [of(v).trusted for v in (0.9, -0.9, 0.1, None)] == [False, False, True, False]
