import pytest
import torch
from torch import nn

from common.models.registry import build_model
from common.models.unet import UNetConfig, check_levels


@pytest.mark.parametrize(
    ("channels", "strides", "message"),
    [
        ([16, 32, 64], [2], r"strides=\[2\] has 1 numbers.*give 2 strides"),
        ([16, 32], [2, 2], r"strides=\[2, 2\] has 2 numbers.*give 1 strides"),
        ([16], [], r"channels=\[16\] has 1 levels.*give two or more"),
        ([16, 0], [2], r"channels\[1\]=0 is not allowed"),
        ([16, 32], [0], r"strides\[0\]=0 is not allowed"),
    ],
)
def test_levels_that_do_not_fit_name_the_way_out(
    channels: list[int], strides: list[int], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        check_levels(channels, strides)
    with pytest.raises(ValueError, match=message):
        UNetConfig(name="unet", channels=channels, strides=strides)


@pytest.mark.parametrize("num_res_units", [0, 1, 2])
def test_logits_keep_the_size_of_the_image(num_res_units: int) -> None:
    config = UNetConfig(
        name="unet", channels=[4, 6, 8], strides=[2, 2], num_res_units=num_res_units, out_channels=3
    )
    logits = build_model(config, seed=0)(torch.randn(1, 1, 16, 24))
    assert logits.shape == (1, 3, 16, 24)


def test_negative_residual_units_are_refused() -> None:
    with pytest.raises(ValueError, match=r"model\.num_res_units=-1"):
        UNetConfig(name="unet", num_res_units=-1)


def test_no_dropout_layer_without_dropout() -> None:
    without, with_it = (
        build_model(UNetConfig(name="unet", dropout=p), seed=0) for p in (0.0, 0.25)
    )
    assert not [m for m in without.modules() if isinstance(m, nn.Dropout)]
    assert {m.p for m in with_it.modules() if isinstance(m, nn.Dropout)} == {0.25}
