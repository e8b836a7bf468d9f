"""A site's update in few bits: the difference from the model that came (common/compression.py)."""

import numpy as np
import torch
from torch import Tensor

from common.compression import coded, differences_of, left_out
from common.compression_config import CodecConfig
from common.state import Arrays, State, arrays_of, tensors_of


def coded_update(
    incoming: Arrays, update: State, left: State, codec: CodecConfig, draw: int
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return an update as coded bytes, [n] uint8, and what is left for the next one.

    left: what the last update left. draw: seed of the rounding. It depends on nothing of a patient
    but by way of the update, so with privacy it costs none.
    """
    differences = differences_of(incoming, arrays_of(update), arrays_of(left))
    whole = coded(differences, codec, np.random.default_rng(draw))
    rest = tensors_of(left_out(differences, whole, codec))
    return torch.from_numpy(whole.copy()), rest
