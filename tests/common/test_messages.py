import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict

from common.contract import (
    Description,
    Estimate,
    PrivacySpent,
    Refusal,
    Request,
    StudyReference,
    TrainReply,
)
from common.messages import (
    MessageError,
    pack,
    unpack_answer,
    unpack_request,
    unpack_weights,
)

REFERENCE = StudyReference(overrides=["seed=1"], digest="ab")
REPLY = TrainReply(
    site="st-a",
    round=3,
    patients=20,
    steps=7,
    seconds=1.5,
    train_loss=None,
    estimates={"dice": Estimate(value=0.5, low=None, high=0.75, n=4)},
    privacy=PrivacySpent(
        unit="patient", epsilon=1.0, delta=1e-3, noise_multiplier=1.1, sample_rate=0.2, steps=7
    ),
)


@pytest.mark.parametrize(
    "body",
    [
        Request(study=REFERENCE, round=2, evaluate=True),
        Description(site="s", patients_train=1, patients_held_out=2, images_train=3, bad_files=0),
        REPLY,
        Refusal(site="s", code="data", text="no"),
    ],
)
def test_what_is_packed_comes_out(body: object) -> None:
    unpack = unpack_request if isinstance(body, Request) else unpack_answer
    assert unpack(pack(body)) == body


def test_weights_keep_dtype_shape_and_bytes() -> None:
    weights = {
        "w": np.random.default_rng(0).normal(size=(3, 2)).astype(np.float32),
        "count": np.array(7, np.int64),
    }
    out = unpack_weights(pack(REPLY, weights))
    assert {k: (v.dtype, v.shape, v.tobytes()) for k, v in out.items()} == {
        k: (v.dtype, v.shape, v.tobytes()) for k, v in weights.items()
    }
    assert unpack_weights(pack(REPLY)) == {}


def _records(change: dict[str, object]) -> RecordDict:
    records = pack(REPLY)
    raw = json.loads(str(records.config_records["body"]["json"])) | change
    records["body"] = ConfigRecord({"kind": "TrainReply", "json": json.dumps(raw)})
    return records


@pytest.mark.parametrize(
    "change",
    [
        {"patients": 0},
        {"patients": "many"},
        {"patients": 10**9},
        {"secret": 1},
        {"estimates": {"dice": {"value": float("nan"), "low": 0, "high": 1, "n": 3}}},
        {"site": None},
    ],
)
def test_a_reply_that_breaks_the_contract_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(MessageError):
        unpack_answer(_records(change))


def test_another_kind_than_asked_is_refused() -> None:
    with pytest.raises(MessageError, match="expected Request"):
        unpack_request(pack(REPLY))
    with pytest.raises(MessageError, match="holds nothing"):
        unpack_request(RecordDict())


def test_an_array_whose_header_lies_is_refused() -> None:
    records = pack(replace(REPLY), {"w": np.zeros((2, 2), np.float32)})
    good = records.array_records["weights"]["w"]
    lie = Array(dtype=good.dtype, shape=(9, 9), stype=good.stype, data=good.data)
    records["weights"] = ArrayRecord({"w": lie})
    with pytest.raises(MessageError, match="shape"):
        unpack_weights(records)


def test_the_courier_and_the_contract_load_no_torch() -> None:
    code = "import sys, client.app, common.messages; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
