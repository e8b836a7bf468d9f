"""DeepMedic: pathways at several scales, dense over an image of any size.

Kamnitsas et al., Medical Image Analysis 2017, with the residual connections of their BrainLes 2016
paper. Legend of shapes: B images, C channels, S spatial axes.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from common.models.config import ModelConfig, check_widths
from common.models.layers import convolution, norm_layer
from common.models.standardise import standardise

KERNEL = 3


@dataclass(frozen=True, kw_only=True)
class DeepMedicConfig(ModelConfig):
    """Settings of DeepMedic. norm=group: the channels of a voxel are normalised by themselves."""

    channels: list[int] = field(default_factory=lambda: [30, 30, 40, 40, 40, 40, 50, 50])
    """Channels of the convolutions of each pathway."""
    factors: list[int] = field(default_factory=lambda: [1, 3])
    """How much coarser the image of each pathway is; 1 is the image itself."""
    dense: list[int] = field(default_factory=lambda: [150, 150])
    """Channels of the 1 x 1 convolutions that put the pathways together."""
    segment: list[int] | None = None
    """As data.segment: the part of an image that a training step answers for. The step sees what
    lies around it too, so that it answers as for the whole image. null: a step sees what it
    answers for and nothing else."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_widths("channels", self.channels)
        check_widths("factors", self.factors)
        check_widths("dense", self.dense)
        if self.norm == "instance":
            raise ValueError(
                "model.norm=instance takes statistics over the image, so that what DeepMedic finds "
                "at a voxel would depend on the segment around it; choose norm=group or norm=batch"
            )

    @property
    def context(self) -> int:
        """Voxels around a segment that what is found inside it depends on.

        Of a coarse voxel that lies half in the segment the other half too; in whole steps of the
        grid.
        """
        reach = max(self.factors) * (len(self.channels) * (KERNEL // 2) + 1) - 1
        return -(-reach // self._step) * self._step

    @property
    def margin(self) -> int:
        """The context, in training by segments."""
        return 0 if self.segment is None else self.context

    @property
    def grid(self) -> int:
        """Coarse voxels begin at an image's corner; so they lie in a segment as in the image."""
        return 1 if self.segment is None else self._step

    @property
    def _step(self) -> int:
        return math.lcm(*self.factors)


class _VoxelNorm(nn.Module):
    """Normalises the channels of each voxel (Li et al., NeurIPS 2019), whatever lies around it."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)

    def forward(self, image_BCS: Tensor) -> Tensor:
        normalised: Tensor = self.norm(image_BCS.movedim(1, -1))
        return normalised.movedim(-1, 1)


class _Layer(nn.Module):
    def __init__(self, config: DeepMedicConfig, before: int, after: int, kernel: int) -> None:
        super().__init__()
        self.convolution = convolution(config.spatial_dims)(before, after, kernel)
        batch = config.norm == "batch"
        self.norm = norm_layer(config, after) if batch else _VoxelNorm(after)
        self.activation = nn.PReLU(after)

    def forward(self, image: Tensor) -> Tensor:
        found: Tensor = self.activation(self.norm(self.convolution(image)))
        return found


class _Pathway(nn.Module):
    """Convolutions without padding on a part and what is around it, made coarser, then fine."""

    def __init__(self, config: DeepMedicConfig, factor: int) -> None:
        super().__init__()
        self.factor, self.dims = factor, config.spatial_dims
        widths = [config.in_channels, *config.channels]
        self.layers = nn.ModuleList(_Layer(config, a, b, KERNEL) for a, b in pairwise(widths))

    def forward(self, seen_BCS: Tensor, context: int) -> Tensor:
        size = [n - 2 * context for n in seen_BCS.shape[2:]]
        margin = self.factor * len(self.layers) * (KERNEL // 2)
        seen = seen_BCS
        for axis, n in enumerate(size, start=2):
            whole = -(-n // self.factor) * self.factor
            seen = seen.narrow(axis, context - margin, whole + 2 * margin)
        if self.factor > 1:
            pool = F.avg_pool2d if self.dims == 2 else F.avg_pool3d
            seen = pool(seen, self.factor)
        earlier = seen
        for place, layer in enumerate(self.layers):
            found = layer(seen)
            # The 4th, 6th and 8th layer add what came into the layer before them.
            if place >= 3 and place % 2 == 1 and earlier.shape[1] == found.shape[1]:
                found = found + _inner(earlier, found.shape[2:])
            earlier, seen = seen, found
        for axis in range(2, 2 + self.dims):
            seen = seen.repeat_interleave(self.factor, axis)
        return _first(seen, size)


class DeepMedic(nn.Module):
    """[B, in_channels, *spatial] -> logits [B, out_channels, *spatial].

    In training by segments what comes in is `context` voxels larger on each side than the answer.
    Else the image is all that there is, and 0 around it, as data preparation pads it.
    """

    def __init__(self, config: DeepMedicConfig) -> None:
        super().__init__()
        self.by_segments, self.context = config.segment is not None, config.context
        self.pathways = nn.ModuleList(_Pathway(config, factor) for factor in config.factors)
        widths = [len(config.factors) * config.channels[-1], *config.dense]
        self.dense = nn.Sequential(*(_Layer(config, a, b, 1) for a, b in pairwise(widths)))
        self.dropout = nn.Dropout(config.dropout)
        self.head = convolution(config.spatial_dims)(widths[-1], config.out_channels, 1)

    def forward(self, seen_BCS: Tensor) -> Tensor:
        """Return the logits."""
        if not (self.training and self.by_segments):
            seen_BCS = F.pad(seen_BCS, [self.context] * 2 * (seen_BCS.ndim - 2))
        found = torch.cat([pathway(seen_BCS, self.context) for pathway in self.pathways], dim=1)
        logits: Tensor = self.head(self.dropout(self.dense(found)))
        return logits


def build_deepmedic(config: DeepMedicConfig) -> nn.Module:
    """Return the network."""
    network = DeepMedic(config)
    return standardise(network) if config.standardised else network


def _inner(image: Tensor, size: Sequence[int]) -> Tensor:
    for axis, wanted in enumerate(size, start=2):
        image = image.narrow(axis, (image.shape[axis] - wanted) // 2, wanted)
    return image


def _first(image: Tensor, size: Sequence[int]) -> Tensor:
    for axis, wanted in enumerate(size, start=2):
        image = image.narrow(axis, 0, wanted)
    return image
