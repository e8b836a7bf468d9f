import numpy as np
import torch
from torch import nn

from common.state import arrays_of, digest_of, state_of, tensors_of


def test_arrays_and_back_are_the_same_tensors() -> None:
    state = state_of(nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2)))
    back = tensors_of(arrays_of(state))
    assert back.keys() == state.keys()
    assert all(torch.equal(back[name], state[name]) for name in state)
    assert all(back[name].dtype == state[name].dtype for name in state)


def test_state_is_a_copy() -> None:
    model = nn.Linear(2, 2)
    before = state_of(model)
    with torch.no_grad():
        model.weight.add_(1)
    assert not torch.equal(before["weight"], model.weight)


def test_digest_sees_names_shapes_dtypes_and_bytes_but_not_order() -> None:
    a, b = np.zeros((2, 3), np.float32), np.ones(2, np.float32)
    assert digest_of({"a": a, "b": b}) == digest_of({"b": b, "a": a})
    others = [
        {"a": a, "c": b},
        {"a": a.reshape(3, 2), "b": b},
        {"a": a.astype(np.int32), "b": b},
        {"a": a, "b": b + np.float32(1e-7)},
    ]
    assert len({digest_of(o) for o in [{"a": a, "b": b}, *others]}) == 5
