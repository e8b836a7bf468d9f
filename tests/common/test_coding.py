import numpy as np
import torch

from common.coding import coded_way
from common.compression import CODED, moved_by
from common.compression_config import CodecConfig
from common.state import arrays_of


def test_a_way_and_what_it_leaves_are_the_whole() -> None:
    codec = CodecConfig(numbers="float32", kept=0.25)
    base = {"a": torch.zeros(8)}
    update = {"a": torch.arange(8.0)}
    waiting = {"a": torch.full((8,), 0.5)}
    whole, left = coded_way(arrays_of(base), update, waiting, codec, draw=0)
    told = moved_by(arrays_of(base), {CODED: whole.numpy()}, codec)
    np.testing.assert_array_equal(told["a"] + left["a"].numpy(), np.arange(8) + 0.5)
    assert np.count_nonzero(told["a"]) == 2
