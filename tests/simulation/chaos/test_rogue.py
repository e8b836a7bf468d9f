from dataclasses import dataclass

import numpy as np
import pytest
from flwr.app import RecordDict

from common.contract import Released, TrainReply
from common.framing import arrays_in
from common.messages import MessageError, pack_answer, unpack_weights
from server.aggregation import refusal_of
from simulation.chaos.rogue import broken

MODEL = {name: np.zeros((2, 3), np.float32) for name in "ab"}
REPLY = TrainReply(
    site="north", round=2, patients=20, steps=4, seconds=1.0, train_loss=None, estimates={}
)


@dataclass(frozen=True)
class Case:
    fault: str
    says: str


def _answer() -> RecordDict:
    return pack_answer(Released(body=REPLY, weights=MODEL))


@pytest.mark.parametrize("case", [Case("shape", "has shape"), Case("nan", "NaN")])
def test_broken_weights_are_what_the_centre_refuses(case: Case) -> None:
    assert refusal_of(unpack_weights(_answer()), MODEL) is None
    assert case.says in str(refusal_of(arrays_in(broken(_answer(), case.fault)), MODEL))


def test_broken_bytes_cannot_be_read() -> None:
    with pytest.raises(MessageError, match="header"):
        arrays_in(broken(_answer(), "bytes"))
