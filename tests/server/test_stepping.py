"""Steps: whoever has the model before has the model after, to the last bit."""

import numpy as np
import torch
from torch import Tensor

from common.compression import moved_by
from common.compression_config import CodecConfig
from common.state import arrays_of, digest_of
from server.stepping import Step, stepped

INT4, TOP = CodecConfig(numbers="int4"), CodecConfig(numbers="int8", kept=0.2)


def model(seed: int) -> dict[str, Tensor]:
    draws = torch.Generator().manual_seed(seed)
    return {"w": torch.randn(30, generator=draws), "n": torch.tensor(seed)}


def test_a_step_leads_from_the_model_before_to_the_model_after() -> None:
    before, after = model(0), model(1)
    for codec in (INT4, TOP):
        found, step = stepped(before, after, None, codec, draw=3)
        assert step.before == digest_of(arrays_of(before))
        moved = moved_by(arrays_of(before), step.arrays, codec)
        for name, tensor in found.items():
            np.testing.assert_array_equal(moved[name], tensor.numpy())
        assert int(found["n"]) == 1


def test_steps_of_the_largest_numbers_reach_the_model_in_the_end() -> None:
    target, reached = model(1), model(0)
    step: Step | None = None
    for draw in range(200):
        # A round goes a part of the way.
        after = {n: t + 0.3 * (target[n] - t) if n == "w" else t for n, t in reached.items()}
        reached, step = stepped(reached, after, step, TOP, draw)
    torch.testing.assert_close(reached["w"], target["w"], rtol=0, atol=1e-3)
