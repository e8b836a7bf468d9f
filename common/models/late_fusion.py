"""Late fusion: what an image says and what a patient's covariates say, added as logits.

Legend of shapes: B images, C channels, S spatial axes, V numbers of covariates, K logits.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from common.models.layers import head_keys

HIDDEN = 16
"""Units between covariates and logits: a risk may rise with age and fall again."""
IMAGE, COVARIATES = "image.", "covariates."
"""How the tensors of each part begin."""


class LateFusion(nn.Module):
    """A network of images beside a small one of covariates (Huang et al., NPJ Digit Med 2020).

    Fused as late as can be, the sum of two log-odds: the image's part is a network of the registry
    as it is, and where nothing is known of a patient the other part is a constant that is learned.
    """

    def __init__(self, image: nn.Module, width: int, outputs: int) -> None:
        """width: numbers of a patient's covariates. outputs: logits."""
        super().__init__()
        self.width = width
        self.image = image
        self.covariates = nn.Sequential(
            nn.Linear(width, HIDDEN), nn.Tanh(), nn.Linear(HIDDEN, outputs)
        )
        self.head_prefixes = (
            *(f"{IMAGE}{key}" for key in sorted(head_keys(image))),
            f"{COVARIATES}2.",
        )

    def forward(self, images_BCS: Tensor) -> Tensor:
        """Return logits_BK; the last channel holds the covariates (with_covariates)."""
        logits: Tensor = self.image(images_BCS[:, :-1])
        said: Tensor = self.covariates(images_BCS[:, -1].flatten(1)[:, : self.width])
        return logits + said


def with_covariates(images_KCS: Tensor, numbers: Sequence[float]) -> Tensor:
    """Return images with one more channel, whose first voxels are a patient's numbers.

    So whatever takes images takes their covariates too, and no copy of them lies elsewhere.
    """
    plane = torch.zeros_like(images_KCS[:, :1])
    plane.flatten(1)[:, : len(numbers)] = torch.tensor(list(numbers))
    return torch.cat([images_KCS, plane], dim=1)
