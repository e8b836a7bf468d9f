"""A U-Net whose answer for an image is made of the volumes that its maps add up to.

A global mean of what a classifier learns by itself averages small lesions away. Here each voxel is
given to a class first, as in a segmentation, and what is counted is voxels of a class: the burden
of disease that risk scores are made of.
Legend of shapes: B images, C channels, S spatial axes, V classes of voxels without the background,
K logits.
"""

from dataclasses import dataclass, replace

from torch import Tensor, nn

from common.checks import in_range, positive
from common.models.unet import UNetConfig, build_unet

MAPS = "maps."
"""How the tensors of the U-Net begin; without it they are those of a study of `unet`."""
PER_CENT = 100.0


@dataclass(frozen=True, kw_only=True)
class UNetVolumesConfig(UNetConfig):
    """Settings of the U-Net and of what is counted."""

    volumes: int = 1
    """Classes of voxels that are counted, without the background. To start from a segmentation:
    as many as it has classes."""

    usual_per_cent: float = 1.0
    """Share of an image that a class is expected to take, about. An answer is the bias there, so
    that bias and slope are learned apart; any number gives the same networks."""

    def __post_init__(self) -> None:
        super().__post_init__()
        positive(**{"model.volumes": self.volumes})
        in_range(0.0, PER_CENT, **{"model.usual_per_cent": self.usual_per_cent})


class UNetVolumes(nn.Module):
    """[B, C, *S] -> logits [B, K], linear in the share of the image that each class takes."""

    def __init__(self, config: UNetVolumesConfig) -> None:
        super().__init__()
        self._usual = config.usual_per_cent
        self.maps = build_unet(replace(config, out_channels=1 + config.volumes))
        self.head = nn.Linear(config.volumes, config.out_channels)

    def forward(self, images_BCS: Tensor) -> Tensor:
        """Return the logits."""
        logits: Tensor = self.head(self.per_cent(images_BCS) - self._usual)
        return logits

    def per_cent(self, images_BCS: Tensor) -> Tensor:
        """Return how much of each image each class takes, expected, in per cent of voxels, [B, V].

        The sum of probabilities is the expected number of voxels; the number after a threshold
        would have no gradient, and would lose what is below it.
        """
        shares_BVS = self.maps(images_BCS).softmax(1)[:, 1:]
        expected: Tensor = PER_CENT * shares_BVS.flatten(2).mean(2)
        return expected


def build_unet_volumes(config: UNetVolumesConfig) -> nn.Module:
    """Return the network; its head is the linear layer."""
    return UNetVolumes(config)
