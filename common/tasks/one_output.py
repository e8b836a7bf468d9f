"""One class of a voxel by one output: its sigmoid is the probability, in the place of a softmax.

Legend of shapes: B images, ... the spatial axes.
"""

import torch
from torch import Tensor


def of_both(logits: Tensor) -> Tensor:
    """Return logits [B, 2, ...] of the background and a class from one output [B, 1, ...].

    softmax(0, z) = (1 - sigmoid(z), sigmoid(z)): so the cross-entropy of both is the binary one,
    and every loss, metric and answer of two classes is that of the sigmoid. Logits of more
    outputs, and those of an image as a whole, are returned as they are.
    """
    if logits.ndim < 3 or logits.shape[1] != 1:
        return logits
    return torch.cat([torch.zeros_like(logits), logits], dim=1)
