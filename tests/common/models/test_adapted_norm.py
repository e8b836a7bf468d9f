import pytest
import torch
from torch import nn

from common.models.adapted_norm import adapted_norm

SHAPES = {2: (3, 4, 6, 5), 3: (3, 4, 6, 5, 4)}


def trained_twins(dims: int, prior: float) -> tuple[nn.Module, nn.Module]:
    """Return an adapted norm and the plain batch norm of the same state."""
    adapted = adapted_norm(dims, 4, prior)
    plain = {2: nn.BatchNorm2d, 3: nn.BatchNorm3d}[dims](4)
    for _ in range(3):
        adapted(2 * torch.randn(SHAPES[dims]) + 1)
    nn.init.normal_(adapted.weight)  # type: ignore[arg-type]
    nn.init.normal_(adapted.bias)  # type: ignore[arg-type]
    plain.load_state_dict(adapted.state_dict(), strict=True)
    return adapted, plain


@pytest.fixture(autouse=True)
def _draws() -> None:
    torch.manual_seed(0)


@pytest.mark.parametrize("dims", [2, 3])
def test_in_training_it_is_batch_norm(dims: int) -> None:
    adapted, plain = trained_twins(dims, prior=2.0)
    images = torch.randn(SHAPES[dims])
    assert torch.equal(adapted(images), plain(images))
    assert all(torch.equal(a, b) for a, b in zip(adapted.buffers(), plain.buffers(), strict=True))


@pytest.mark.parametrize("dims", [2, 3])
def test_with_a_large_prior_it_is_batch_norm_and_with_none_instance_norm(dims: int) -> None:
    images = 3 * torch.randn(SHAPES[dims]) - 2
    adapted, plain = (layer.eval() for layer in trained_twins(dims, prior=1e9))
    torch.testing.assert_close(adapted(images), plain(images), rtol=1e-4, atol=1e-4)
    adapted, plain = (layer.eval() for layer in trained_twins(dims, prior=0.0))
    instance = nn.functional.instance_norm(
        images,
        weight=plain.weight,
        bias=plain.bias,  # type: ignore[arg-type]
    )
    torch.testing.assert_close(adapted(images), instance, rtol=1e-4, atol=1e-4)


def test_no_image_sees_another() -> None:
    adapted, _ = trained_twins(2, prior=4.0)
    adapted.eval()
    images = torch.randn(SHAPES[2])
    together = adapted(images)
    alone = torch.cat([adapted(image[None]) for image in images])
    torch.testing.assert_close(together, alone)


@pytest.mark.parametrize("scale", [1.0, 2.0])
def test_a_scanner_that_shifts_and_scales_moves_the_output_less_than_with_batch_norm(
    scale: float,
) -> None:
    adapted, plain = (layer.eval() for layer in trained_twins(2, prior=1.0))
    images = torch.randn(SHAPES[2])
    seen = scale * images + 3
    moved = [float((layer(seen) - layer(images)).norm()) for layer in (adapted, plain)]
    assert moved[0] < 0.6 * moved[1]
