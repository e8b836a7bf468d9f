import pytest
import torch
from torch import nn

from common.models.attention_unet import AttentionUNetConfig
from common.models.registry import build_model


def test_odd_channels_of_a_gated_level_are_refused() -> None:
    with pytest.raises(ValueError, match=r"channels\[1\]=5 is odd.*give an even number"):
        AttentionUNetConfig(name="attention_unet", channels=[4, 5, 6], strides=[2, 2])
    AttentionUNetConfig(name="attention_unet", channels=[4, 6, 7], strides=[2, 2])


def test_strides_must_lie_between_levels() -> None:
    with pytest.raises(ValueError, match="give 2 strides"):
        AttentionUNetConfig(name="attention_unet", channels=[4, 6, 8], strides=[2])


def test_gates_are_normalised_as_the_rest() -> None:
    model = build_model(AttentionUNetConfig(name="attention_unet"), seed=0)
    gates = [m for key, m in model.named_modules() if key.endswith(("W_g.1", "W_x.1", "psi.1"))]
    assert len(gates) == 6
    assert all(isinstance(gate, nn.GroupNorm) for gate in gates)


def test_activations_are_those_of_the_paper() -> None:
    model = build_model(AttentionUNetConfig(name="attention_unet"), seed=0)
    found = {type(m) for m in model.modules() if isinstance(m, nn.ReLU | nn.PReLU | nn.LeakyReLU)}
    assert found == {nn.ReLU}


def test_logits_keep_the_size_of_the_image() -> None:
    config = AttentionUNetConfig(
        name="attention_unet", channels=[4, 6, 8], strides=[2, 2], out_channels=3, dropout=0.1
    )
    assert build_model(config, seed=0)(torch.randn(1, 1, 16, 24)).shape == (1, 3, 16, 24)
