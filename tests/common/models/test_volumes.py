import pytest
import torch

from common.models.registry import build_model
from common.models.volumes import UNetVolumes, UNetVolumesConfig


def network(**changes: object) -> UNetVolumes:
    given = {"name": "unet_volumes", "channels": [4, 6], "strides": [2], **changes}
    built = build_model(UNetVolumesConfig(**given), 0)  # type: ignore[arg-type]
    assert isinstance(built, UNetVolumes)
    return built.eval()


def images(seed: int = 0, dims: int = 2) -> torch.Tensor:
    return torch.randn(3, 1, *[16] * dims, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("dims", [2, 3])
def test_what_is_counted_is_the_voxels_that_a_sure_map_has(dims: int) -> None:
    counted = network(spatial_dims=dims, volumes=2)
    with torch.no_grad():
        # As sure as can be: each voxel is of one class.
        last = list(counted.maps.parameters())[-1]
        sharp = counted.maps.register_forward_hook(lambda _, __, maps: 1e6 * maps)
        maps = counted.maps(images(dims=dims)).argmax(1).flatten(1)
        found = counted.per_cent(images(dims=dims))
        sharp.remove()
    assert len(last) == 3
    for place, label in enumerate((1, 2)):
        share = 100 * (maps == label).float().mean(1)
        torch.testing.assert_close(found[:, place], share, atol=1e-3, rtol=1e-4)


def test_logits_are_linear_in_the_volumes() -> None:
    counted = network(volumes=2, out_channels=5)
    with torch.no_grad():
        logits, volumes = counted(images()), counted.per_cent(images())
        # An image of which each class takes the usual share has the bias.
        expected = (volumes - 1.0) @ counted.head.weight.T + counted.head.bias
    assert logits.shape == (3, 5)
    torch.testing.assert_close(logits, expected)


def test_nothing_to_count_is_refused() -> None:
    with pytest.raises(ValueError, match="volumes=0"):
        network(volumes=0)
