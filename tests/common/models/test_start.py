"""Weights from files: who names them how, and what does not fit is told before anything runs."""

import hashlib
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from common.models.config import ModelConfig, StartConfig
from common.models.layers import head_keys
from common.models.registry import build_model, model_config_type
from common.models.start import FOLDER, StartError, load_start
from tests.common.models.tiny import SMALLEST, tiny

NORM = ("weight", "bias", "running_mean", "running_var")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder of weights of this machine."""
    monkeypatch.setenv(FOLDER, str(tmp_path))
    return tmp_path


def saved(folder: Path, state: dict[str, Tensor], name: str = "w.safetensors") -> StartConfig:
    if name.endswith("safetensors"):
        save_file(state, folder / name)
    else:
        torch.save({"state_dict": state, "epoch": 3}, folder / name)
    return named(folder, name)


def named(folder: Path, name: str, **more: Any) -> StartConfig:
    digest = hashlib.sha256((folder / name).read_bytes()).hexdigest()
    return StartConfig(file=name, sha256=digest, **more)


def config(name: str, **more: Any) -> ModelConfig:
    return model_config_type(name)(name=name, **more)


def random(shapes: dict[str, tuple[int, ...]]) -> dict[str, Tensor]:
    draws = torch.Generator().manual_seed(0)
    return {name: torch.randn(shape, generator=draws) for name, shape in shapes.items()}


def resnet18_of_torchvision() -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {"conv1.weight": (64, 3, 7, 7)}
    shapes |= {f"bn1.{key}": (64,) for key in NORM}
    before = 64
    for stage, width in enumerate((64, 128, 256, 512), start=1):
        for block in (0, 1):
            at = f"layer{stage}.{block}"
            shapes[f"{at}.conv1.weight"] = (width, before if block == 0 else width, 3, 3)
            shapes[f"{at}.conv2.weight"] = (width, width, 3, 3)
            for norm in ("bn1", "bn2"):
                shapes |= {f"{at}.{norm}.{key}": (width,) for key in NORM}
        if stage > 1:
            shapes[f"layer{stage}.0.downsample.0.weight"] = (width, before, 1, 1)
            shapes |= {f"layer{stage}.0.downsample.1.{key}": (width,) for key in NORM}
        before = width
    return {**shapes, "fc.weight": (1000, 512), "fc.bias": (1000,)}


def densenet121_of_torchvision() -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {"features.conv0.weight": (64, 3, 7, 7)}
    shapes |= {f"features.norm0.{key}": (64,) for key in NORM}
    channels = 64
    for block, layers in enumerate((6, 12, 24, 16), start=1):
        for layer in range(1, layers + 1):
            # As its published checkpoints have it: norm.1 for norm1.
            at = f"features.denseblock{block}.denselayer{layer}"
            shapes |= {f"{at}.norm.1.{key}": (channels,) for key in NORM}
            shapes[f"{at}.conv.1.weight"] = (128, channels, 1, 1)
            shapes |= {f"{at}.norm.2.{key}": (128,) for key in NORM}
            shapes[f"{at}.conv.2.weight"] = (32, 128, 3, 3)
            channels += 32
        if block < 4:
            at = f"features.transition{block}"
            shapes |= {f"{at}.norm.{key}": (channels,) for key in NORM}
            shapes[f"{at}.conv.weight"] = (channels // 2, channels, 1, 1)
            channels //= 2
    shapes |= {f"features.norm5.{key}": (channels,) for key in NORM}
    return {**shapes, "classifier.weight": (1000, channels), "classifier.bias": (1000,)}


def vgg16_bn_of_torchvision() -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {}
    places = (0, 3, 7, 10, 14, 17, 20, 24, 27, 30, 34, 37, 40)
    widths = (64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512)
    before = 3
    for place, width in zip(places, widths, strict=True):
        shapes[f"features.{place}.weight"] = (width, before, 3, 3)
        shapes[f"features.{place}.bias"] = (width,)
        shapes |= {f"features.{place + 1}.{key}": (width,) for key in NORM}
        before = width
    return {**shapes, "classifier.6.weight": (1000, 16), "classifier.6.bias": (1000,)}


def vit_of_timm(width: int = 24, places: int = 5) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {
        "cls_token": (1, 1, width),
        "pos_embed": (1, places, width),
        "patch_embed.proj.weight": (width, 3, 8, 8),
        "patch_embed.proj.bias": (width,),
        "norm.weight": (width,),
        "norm.bias": (width,),
        "head.weight": (2, width),
        "head.bias": (2,),
    }
    for block in range(2):
        at = f"blocks.{block}"
        for norm in ("norm1", "norm2"):
            shapes |= {f"{at}.{norm}.weight": (width,), f"{at}.{norm}.bias": (width,)}
        for layer, outputs, inputs in (
            ("attn.qkv", 3 * width, width),
            ("attn.proj", width, width),
            ("mlp.fc1", 2 * width, width),
            ("mlp.fc2", width, 2 * width),
        ):
            shapes |= {f"{at}.{layer}.weight": (outputs, inputs), f"{at}.{layer}.bias": (outputs,)}
    return shapes


STAGES = (
    # repeats, kernel, expansion, channels in, channels out: Tan and Le, ICML 2019, Table 1.
    (1, 3, 1, 32, 16),
    (2, 3, 6, 16, 24),
    (2, 5, 6, 24, 40),
    (3, 3, 6, 40, 80),
    (3, 5, 6, 80, 112),
    (4, 5, 6, 112, 192),
    (1, 3, 6, 192, 320),
)


def efficientnet_blocks() -> Iterator[tuple[int, int, int, int, int, int, int]]:
    """Yield stage, block, kernel, channels in, expanded, out, squeezed."""
    for stage, (repeats, kernel, expansion, first, out) in enumerate(STAGES):
        for block in range(repeats):
            before = first if block == 0 else out
            yield stage, block, kernel, before, before * expansion, out, max(1, before // 4)


def efficientnet_of_timm() -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {"conv_stem.weight": (32, 3, 3, 3)}
    shapes |= {f"bn1.{key}": (32,) for key in NORM}
    for stage, block, kernel, before, wide, out, squeezed in efficientnet_blocks():
        at = f"blocks.{stage}.{block}"
        if stage == 0:
            norms, last = (wide, out), "conv_pw"
        else:
            norms, last = (wide, wide, out), "conv_pwl"
            shapes[f"{at}.conv_pw.weight"] = (wide, before, 1, 1)
        shapes[f"{at}.conv_dw.weight"] = (wide, 1, kernel, kernel)
        shapes[f"{at}.{last}.weight"] = (out, wide, 1, 1)
        for place, width in enumerate(norms, start=1):
            shapes |= {f"{at}.bn{place}.{key}": (width,) for key in NORM}
        shapes |= {f"{at}.se.conv_reduce.weight": (squeezed, wide, 1, 1)}
        shapes |= {f"{at}.se.conv_reduce.bias": (squeezed,)}
        shapes |= {f"{at}.se.conv_expand.weight": (wide, squeezed, 1, 1)}
        shapes |= {f"{at}.se.conv_expand.bias": (wide,)}
    shapes |= {"conv_head.weight": (1280, 320, 1, 1), **{f"bn2.{key}": (1280,) for key in NORM}}
    return {**shapes, "classifier.weight": (1000, 1280), "classifier.bias": (1000,)}


def efficientnet_of_torchvision() -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {"features.0.0.weight": (32, 3, 3, 3)}
    shapes |= {f"features.0.1.{key}": (32,) for key in NORM}
    for stage, block, kernel, before, wide, out, squeezed in efficientnet_blocks():
        at, layer = f"features.{stage + 1}.{block}.block", 0
        convolutions = [] if stage == 0 else [(wide, before, 1, 1)]
        for shape in (*convolutions, (wide, 1, kernel, kernel)):
            shapes[f"{at}.{layer}.0.weight"] = shape
            shapes |= {f"{at}.{layer}.1.{key}": (wide,) for key in NORM}
            layer += 1
        shapes[f"{at}.{layer}.fc1.weight"] = (squeezed, wide, 1, 1)
        shapes[f"{at}.{layer}.fc1.bias"] = (squeezed,)
        shapes[f"{at}.{layer}.fc2.weight"] = (wide, squeezed, 1, 1)
        shapes[f"{at}.{layer}.fc2.bias"] = (wide,)
        shapes[f"{at}.{layer + 1}.0.weight"] = (out, wide, 1, 1)
        shapes |= {f"{at}.{layer + 1}.1.{key}": (out,) for key in NORM}
    shapes["features.8.0.weight"] = (1280, 320, 1, 1)
    shapes |= {f"features.8.1.{key}": (1280,) for key in NORM}
    return {**shapes, "classifier.1.weight": (1000, 1280), "classifier.1.bias": (1000,)}


OF_OTHERS = [
    ("resnet18", resnet18_of_torchvision),
    ("densenet121", densenet121_of_torchvision),
    ("chexnet", densenet121_of_torchvision),
    ("vgg16", vgg16_bn_of_torchvision),
    ("efficientnet_b0", efficientnet_of_torchvision),
]


@pytest.mark.parametrize(("family", "shapes"), OF_OTHERS)
@pytest.mark.parametrize("norm", ["group", "batch"])
def test_torchvisions_weights_come_in_whole_but_for_the_head(
    family: str, shapes: Any, norm: str, folder: Path
) -> None:
    policy = "average" if norm == "batch" else None
    state = random(shapes())
    start = saved(folder, state, "theirs.pth")
    start = named(folder, start.file, layout="torchvision")
    settings = config(family, in_channels=3, norm=norm, batch_norm_policy=policy)
    network = build_model(settings, seed=0)
    report = load_start(network, family, start)
    fresh = {n for n in report.fresh if not n.endswith("num_batches_tracked")}
    assert {n.rpartition(".")[0] for n in fresh} <= {"fc", "class_layers.out", "head", "_fc"}
    statistics = {n for n in report.left if "running_" in n}
    assert bool(statistics) == (norm == "group")
    assert {n for n in report.left if "running_" not in n} <= {
        *(f"{head}.{k}" for head in ("fc", "_fc", "class_layers.out", "classifier.6") for k in NORM)
    }
    first = next(iter(state.values()))
    assert any(torch.equal(first, tensor) for tensor in network.state_dict().values())


def test_a_grey_image_gets_the_answer_of_the_same_image_in_colour(folder: Path) -> None:
    start = saved(folder, random(resnet18_of_torchvision()))
    colour = build_model(config("resnet18", in_channels=3, start=start), seed=0).eval()
    grey = build_model(config("resnet18", in_channels=1, start=start), seed=0).eval()
    image = torch.randn(2, 1, 64, 64)
    with torch.no_grad():
        expected = colour.conv1(image.repeat(1, 3, 1, 1))  # type: ignore[operator, union-attr]
        torch.testing.assert_close(
            grey.conv1(image),  # type: ignore[operator, union-attr]
            expected,
            rtol=1e-4,
            atol=1e-4,
        )


def test_both_libraries_efficientnets_are_one_network_here(folder: Path) -> None:
    """Each name of the one leads where the same tensor of the other does."""
    theirs = {"torchvision": efficientnet_of_torchvision(), "timm": efficientnet_of_timm()}
    draws = random({str(shape): shape for shape in {*theirs["timm"].values()}})
    begun = {}
    for layout, shapes in theirs.items():
        saved(folder, {name: draws[str(shape)].clone() for name, shape in shapes.items()})
        start = named(folder, "w.safetensors", layout=layout)
        settings = config("efficientnet_b0", norm="batch", batch_norm_policy="average")
        network = build_model(settings, seed=0)
        report = load_start(network, "efficientnet_b0", start)
        assert {n.split(".")[0] for n in report.left} <= {"_fc"}
        begun[layout] = network.state_dict()
    for name, tensor in begun["timm"].items():
        assert torch.equal(tensor, begun["torchvision"][name]), name


def test_a_vit_of_timm_gives_the_same_answer_here(folder: Path) -> None:
    state = {name: 0.3 * tensor for name, tensor in random(vit_of_timm()).items()}
    saved(folder, state)
    start = named(folder, "w.safetensors", layout="timm", fresh=[])
    settings = config(
        "vit", in_channels=3, image_size=[16, 16], hidden=24, mlp=48, heads=3, layers=2, start=start
    )
    network = build_model(settings, seed=0).eval()
    image = torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        # MONAI's norms have PyTorch's 1e-5, timm's 1e-6: nothing at this precision.
        torch.testing.assert_close(network(image), timms(state, image), rtol=1e-3, atol=1e-3)


def timms(w: dict[str, Tensor], image: Tensor) -> Tensor:
    """Return timm's VisionTransformer.forward, written out."""

    def linear(x: Tensor, name: str) -> Tensor:
        return F.linear(x, w[f"{name}.weight"], w[f"{name}.bias"])

    def norm(x: Tensor, name: str) -> Tensor:
        return F.layer_norm(x, x.shape[-1:], w[f"{name}.weight"], w[f"{name}.bias"])

    x = F.conv2d(image, w["patch_embed.proj.weight"], w["patch_embed.proj.bias"], stride=8)
    x = x.flatten(2).transpose(1, 2)
    x = torch.cat([w["cls_token"].expand(len(x), -1, -1), x], 1) + w["pos_embed"]
    rows, tokens, width = x.shape
    for block in ("blocks.0", "blocks.1"):
        parts = linear(norm(x, f"{block}.norm1"), f"{block}.attn.qkv")
        q, k, v = parts.reshape(rows, tokens, 3, 3, width // 3).permute(2, 0, 3, 1, 4)
        mixed = ((q @ k.transpose(-2, -1)) * (width // 3) ** -0.5).softmax(-1) @ v
        x = x + linear(mixed.transpose(1, 2).reshape(rows, tokens, width), f"{block}.attn.proj")
        hidden = F.gelu(linear(norm(x, f"{block}.norm2"), f"{block}.mlp.fc1"))
        x = x + linear(hidden, f"{block}.mlp.fc2")
    return linear(norm(x, "norm")[:, 0], "head")


@pytest.mark.parametrize("name", ["w.safetensors", "w.pt"])
def test_a_model_of_our_own_starts_where_another_ended(name: str, folder: Path) -> None:
    trained = build_model(config("cnn", channels=[4, 6]), seed=5)
    start = saved(folder, {f"module.{k}": v.clone() for k, v in trained.state_dict().items()}, name)
    begun = build_model(config("cnn", channels=[4, 6], start=start), seed=0).state_dict()
    head = {k for k in begun if k.split(".")[0] == str(len(list(trained.children())) - 1)}
    assert head
    for key, tensor in trained.state_dict().items():
        assert torch.equal(tensor, begun[key]) == (key not in head)


@pytest.mark.parametrize("standardised", [None, True])
@pytest.mark.parametrize("name", SMALLEST)
def test_every_network_starts_where_the_same_network_ended(
    name: str, standardised: bool | None, folder: Path
) -> None:
    if standardised and name in ("anfr", "scattering"):
        pytest.skip("its weights are standardised as they are")
    usual = replace(tiny(name), standardised=standardised)
    trained = build_model(usual, seed=5)
    start = saved(folder, {k: v.contiguous() for k, v in trained.state_dict().items()})
    start = named(folder, start.file, fresh=[])
    begun = build_model(replace(usual, start=start), seed=0).state_dict()
    for key, tensor in trained.state_dict().items():
        assert torch.equal(tensor, begun[key]), key


@pytest.mark.parametrize("covariates", [None, {"age": [18, 95]}])
def test_a_network_that_counts_voxels_starts_with_one_that_segments_them(
    covariates: dict[str, list[Any]] | None, folder: Path
) -> None:
    trained = build_model(tiny("unet"), seed=5).state_dict()
    start = saved(folder, {k: v.contiguous() for k, v in trained.items()})
    counting = replace(tiny("unet_volumes"), start=start, covariates=covariates)
    begun = build_model(counting, seed=0).state_dict()
    part = "maps." if covariates is None else "image.maps."
    for key, tensor in trained.items():
        assert torch.equal(tensor, begun[f"{part}{key}"]), key


def test_the_weights_come_before_they_are_standardised(folder: Path) -> None:
    trained = build_model(config("cnn", channels=[4, 6]), seed=5)
    start = saved(folder, dict(trained.state_dict()))
    begun = build_model(config("cnn", channels=[4, 6], standardised=True, start=start), seed=0)
    originals = {k: v for k, v in begun.state_dict().items() if k.endswith(".original")}
    assert len(originals) == 2
    for key, tensor in originals.items():
        assert torch.equal(
            tensor,
            trained.state_dict()[key.replace(".parametrizations.weight.original", ".weight")],
        )


def test_what_is_not_in_the_file_is_told_with_both_shapes(folder: Path) -> None:
    start = saved(folder, dict(build_model(config("cnn", channels=[4, 6]), 0).state_dict()))
    with pytest.raises(StartError, match=r"\[8, 4, 3, 3\] \(in the file: \[6, 4, 3, 3\]\).*fresh"):
        build_model(config("cnn", channels=[4, 8], start=start), seed=0)
    chosen = named(folder, start.file, fresh=["1.*", "head"])
    build_model(config("cnn", channels=[4, 8], start=chosen), seed=0)


def test_a_start_that_gives_nothing_is_no_start(folder: Path) -> None:
    start = saved(folder, dict(build_model(config("cnn", channels=[4, 6]), 0).state_dict()))
    nothing = named(folder, start.file, fresh=["*"])
    with pytest.raises(StartError, match=r"gives model.name=cnn no tensor.*0\.conv\.weight"):
        build_model(config("cnn", channels=[4, 6], start=nothing), seed=0)


ASKED = {"age": [18, 95], "sex": ["F", "M"]}


def test_a_study_with_covariates_begins_where_one_with_or_without_them_ended(folder: Path) -> None:
    plain = tiny("cnn")
    told = replace(plain, covariates=ASKED)
    fused, images_alone = (build_model(of, 7).state_dict() for of in (told, plain))
    whole = build_model(replace(told, start=saved(folder, fused)), 0).state_dict()
    assert torch.equal(whole["covariates.0.weight"], fused["covariates.0.weight"])
    assert torch.equal(whole["image.0.conv.weight"], fused["image.0.conv.weight"])
    part = build_model(replace(told, start=saved(folder, images_alone)), 0).state_dict()
    first = "0.conv.weight"
    assert torch.equal(part[f"image.{first}"], images_alone[first])
    assert not torch.equal(part["covariates.0.weight"], fused["covariates.0.weight"])
    other = replace(plain, covariates={"age": [18, 95]}, start=saved(folder, fused))
    with pytest.raises(StartError, match=r"covariates\.0\.weight"):
        build_model(other, 0)


def test_a_head_that_an_earlier_restoration_learned_is_kept_where_nothing_is_fresh(
    folder: Path,
) -> None:
    restores = replace(tiny("unet128"), out_channels=1, residual=True)
    learned = {name: t + 0.5 for name, t in build_model(restores, 0).state_dict().items()}
    start = saved(folder, learned)
    anew = build_model(replace(restores, start=start), 0)
    kept = build_model(replace(restores, start=replace(start, fresh=[])), 0)
    for name in head_keys(kept):
        assert torch.equal(kept.state_dict()[name], learned[name])
        assert not anew.state_dict()[name].any()


def test_what_came_and_what_did_not_is_told_in_a_line(folder: Path) -> None:
    network = build_model(config("cnn", channels=[4, 6]), 0)
    start = saved(folder, {**network.state_dict(), "old.weight": torch.zeros(1)})
    told = str(load_start(network, "cnn", start))
    assert re.fullmatch(
        r"8 of 10 tensors; at random: 4\.weight, 4\.bias; not used of the file: "
        r"4\.bias, 4\.weight, old\.weight",
        told,
    )


def test_a_file_that_is_not_there_or_another_or_no_weights_is_told(folder: Path) -> None:
    start = saved(folder, {"a": torch.zeros(1)})
    gone = StartConfig(file="gone.pt", sha256=start.sha256)
    with pytest.raises(StartError, match=rf"gone.pt is not in .*{FOLDER}"):
        build_model(config("cnn", start=gone), seed=0)
    other = StartConfig(file=start.file, sha256="0" * 64)
    with pytest.raises(StartError, match=f"has the SHA-256 {start.sha256}"):
        build_model(config("cnn", start=other), seed=0)
    (folder / "bad.pt").write_bytes(b"no weights")
    with pytest.raises(StartError, match=r"cannot be read as weights .*weights_only"):
        build_model(config("cnn", start=named(folder, "bad.pt")), seed=0)


class Evil:
    def __reduce__(self) -> Any:
        return (print, ("run",))


def test_a_file_that_would_run_code_is_not_run(folder: Path, capsys: Any) -> None:
    torch.save({"state_dict": {"a": Evil()}}, folder / "evil.pt")
    with pytest.raises(StartError, match="cannot be read"):
        build_model(config("cnn", start=named(folder, "evil.pt")), seed=0)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"file": "../w.pt"}, "no plain file name"),
        ({"sha256": "abc"}, "no SHA-256"),
        ({"layout": "keras"}, "layout='keras' is not known"),
    ],
)
def test_a_start_that_cannot_be_is_refused(changes: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        StartConfig(**{"file": "w.pt", "sha256": "0" * 64, **changes})


def test_nothing_but_a_state_dict_is_taken(folder: Path) -> None:
    torch.save([1, 2], folder / "list.pt")
    with pytest.raises(StartError, match="holds a list"):
        load_start(nn.Linear(1, 1), "cnn", named(folder, "list.pt"))
