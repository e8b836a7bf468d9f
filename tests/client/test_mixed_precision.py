from pathlib import Path

import pytest
import torch

from client.mixed_precision import SHORT, check_mixed_precision, strides_over_short_axis
from client.trainer import trainer_at
from common.contract import RefusalError
from common.models.registry import build_model
from tests.builders import PICTURES, PRIVATE, pictures_site, request_for, study_from

CPU = torch.device("cpu")
AMP = (*PICTURES, "training.amp=true")


def able_to(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: dict.fromkeys(names, True))


def test_it_is_refused_where_it_would_be_emulated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    able_to(monkeypatch, "avx512_f")
    with pytest.raises(RefusalError, match="would be slower here"):
        trainer_at(pictures_site(tmp_path / "a")).describe(request_for(*AMP))
    # A site that only tests computes in float32.
    assert trainer_at(pictures_site(tmp_path / "b", train=0, test=6)).describe(request_for(*AMP))


@pytest.mark.parametrize("name", ["amx_bf16", "avx512_bf16", "bf16"])
def test_it_is_taken_where_the_processor_has_it(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    able_to(monkeypatch, name)
    check_mixed_precision(study_from(*AMP), CPU)


def test_with_privacy_it_is_refused_on_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    able_to(monkeypatch, "avx512_bf16")
    with pytest.raises(RefusalError, match="with privacy needs a GPU"):
        check_mixed_precision(study_from(*AMP, *PRIVATE), CPU)
    check_mixed_precision(study_from(*AMP, *PRIVATE), torch.device("cuda"))


NETWORKS = [
    ("model=resnet18", "data=pictures", "task=classification", "data.size=[16,16]"),
    ("model=resnet18", "data=volumes", "task=classification", "data.size=[64,64,16]"),
    ("model=unet", "data=slices", "data.size=[64,4]", "model.norm_groups=1"),
]


@pytest.mark.parametrize("network", NETWORKS)
def test_it_is_refused_where_a_convolution_strides_over_a_short_axis(
    network: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    able_to(monkeypatch, "avx512_bf16")
    with pytest.raises(RefusalError, match=f"strides over {SHORT} voxels"):
        check_mixed_precision(study_from(*network, "training.amp=true"), CPU)


@pytest.mark.parametrize(
    "network",
    [
        ("model=resnet18", "data=pictures", "task=classification", "data.size=[64,64]"),
        ("model=unet", "data=volumes", "data.size=[40,56,40]"),
        ("model=cnn", "data=pictures", "task=classification"),
    ],
)
def test_where_it_is_taken_equal_passes_give_equal_bytes_whatever_memory_held(
    network: tuple[str, ...],
) -> None:
    study = study_from(*network)
    assert not strides_over_short_axis(study)
    model = build_model(study.model, 0)
    images = torch.randn(2, 1, *study.data.size, generator=torch.Generator().manual_seed(0))
    gradients = []
    for left_behind in (0.0, 1e30, float("nan")):
        # Blocks of many sizes that the next pass may be given as they are.
        blocks = [torch.full((2**power,), left_behind) for power in range(8, 22)]
        del blocks
        model.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = model(images).float().square().mean()
        torch.autograd.backward(loss)
        gradients.append([p.grad.clone() for p in model.parameters() if p.grad is not None])
    for other in gradients[1:]:
        assert all(torch.equal(a, b) for a, b in zip(gradients[0], other, strict=True))
    assert all(gradient.isfinite().all() for gradient in gradients[0])
