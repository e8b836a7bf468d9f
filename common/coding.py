"""From one model to another in few bits: a site's update, and the step of a round."""

import numpy as np
import torch
from torch import Tensor

from common.compression import coded, differences_of, left_out
from common.compression_config import CodecConfig
from common.state import Arrays, State, arrays_of, tensors_of


def coded_way(
    before: Arrays, after: State, left: State, codec: CodecConfig, draw: int
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the way from one model to another as coded bytes, [n] uint8, and what is left of it.

    left: what the last way left. draw: seed of the rounding. It depends on nothing of a patient but
    by way of the models, so with privacy it costs none.
    """
    differences = differences_of(before, arrays_of(after), arrays_of(left))
    whole = coded(differences, codec, np.random.default_rng(draw))
    rest = tensors_of(left_out(differences, whole, codec))
    return torch.from_numpy(whole.copy()), rest
