import gc
import json
import subprocess
import sys
import weakref
from pathlib import Path

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict

from common.contract import (
    Answer,
    Description,
    Estimate,
    Refusal,
    Released,
    Request,
    StudyReference,
    TrainReply,
)
from common.framed_files import WeightsReference
from common.messages import (
    FRAMED,
    WEIGHTS,
    MessageError,
    framed_weights,
    pack_answer,
    pack_request,
    put_beside,
    put_in,
    unpack_answer,
    unpack_request,
    unpack_weights,
    weights_at,
)
from tests.builders import spent

ROOT = Path(__file__).parents[2]
REFERENCE = StudyReference(overrides=["seed=1"], digest="ab")
REQUEST = Request(study=REFERENCE, round=2, evaluate=True)
REPLY = TrainReply(
    site="st-a",
    round=3,
    patients=20,
    steps=7,
    seconds=1.5,
    train_loss=None,
    estimates={"dice": Estimate(value=0.5, low=None, high=0.75, n=4)},
    privacy=spent(),
)
RELEASED = Released(body=REPLY)


@pytest.mark.parametrize(
    "body",
    [
        REQUEST,
        Description(site="s", patients_train=1, patients_held_out=2, images_train=3, bad_files=0),
        REPLY,
        Refusal(site="s", code="data", text="no"),
    ],
)
def test_what_is_packed_comes_out(body: Request | Answer) -> None:
    if isinstance(body, Request):
        assert unpack_request(pack_request(body)) == body
    else:
        assert unpack_answer(pack_answer(Released(body=body))) == body


def test_weights_keep_dtype_shape_and_bytes() -> None:
    weights = {
        "w": np.random.default_rng(0).normal(size=(3, 2)).astype(np.float32),
        "count": np.array(7, np.int64),
    }
    for records in (
        pack_answer(Released(body=REPLY, weights=weights)),
        pack_request(REQUEST, weights),
    ):
        out = unpack_weights(records)
        assert {k: (v.dtype, v.shape, v.tobytes()) for k, v in out.items()} == {
            k: (v.dtype, v.shape, v.tobytes()) for k, v in weights.items()
        }
    assert unpack_weights(pack_answer(RELEASED)) == {}


def _records(change: dict[str, object]) -> RecordDict:
    records = pack_answer(RELEASED)
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
        unpack_request(pack_answer(RELEASED))
    with pytest.raises(MessageError, match="holds nothing"):
        unpack_request(RecordDict())


JUNK = bytes(64)


@pytest.mark.parametrize(
    ("name", "array"),
    [
        ("other", Array("uint8", (64,), FRAMED, JUNK)),
        (FRAMED, Array(np.zeros(64, np.uint8))),
        (FRAMED, Array("uint8", (64,), FRAMED, JUNK)),
        (FRAMED, Array("uint8", (64,), FRAMED, b"\xff" * 64)),
        (FRAMED, Array("uint8", (0,), FRAMED, b"")),
    ],
)
def test_what_is_no_weights_is_refused(name: str, array: Array) -> None:
    records = pack_request(REQUEST, {"w": np.zeros((2, 2), np.float32)})
    records[WEIGHTS] = ArrayRecord({name: array})
    with pytest.raises(MessageError):
        unpack_weights(records)


def test_cut_weights_are_refused() -> None:
    records = pack_request(REQUEST, {"w": np.zeros((2, 2), np.float32)})
    framed = framed_weights(records)
    assert framed is not None
    put_in(records, framed[:40])
    with pytest.raises(MessageError, match="cut off"):
        unpack_weights(records)


def test_weights_are_put_beside_a_message_and_in_again() -> None:
    records = pack_request(REQUEST, {"w": np.ones(3, np.float32)})
    framed = framed_weights(records)
    assert framed is not None
    named = WeightsReference(sha256="a" * 64, length_bytes=len(framed))
    put_beside(records, named)
    assert (framed_weights(records), weights_at(records)) == (None, named)
    put_in(records, framed)
    assert weights_at(records) is None
    assert unpack_weights(records)["w"].tolist() == [1.0, 1.0, 1.0]


@pytest.mark.parametrize(
    "told",
    [
        {},
        {"sha256": "a" * 64},
        {"sha256": "../etc/passwd", "bytes": 1},
        {"sha256": "a" * 64, "bytes": -1},
        {"sha256": "a" * 64, "bytes": "many"},
        {"sha256": "a" * 64, "bytes": float("inf")},
        {"sha256": "a" * 64, "bytes": float("nan")},
        {"sha256": "a" * 64, "bytes": True},
    ],
)
def test_a_name_of_weights_that_is_none_is_refused(told: dict[str, str | int]) -> None:
    with pytest.raises(MessageError, match="not named"):
        weights_at(RecordDict({"weights-at": ConfigRecord(told)}))  # type: ignore[arg-type]


def test_the_courier_and_the_contract_load_no_torch() -> None:
    code = "import sys, client.app, client.privacy.gate; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


SNIPPET = """
from common.contract import Released, TrainReply
from common.messages import pack_answer

body = TrainReply(site="s", round=1, patients=1, steps=1, seconds=0.0)
pack_answer(Released(body=body))
pack_answer(body)
"""


def test_an_answer_that_no_gate_released_is_a_type_error(tmp_path: Path) -> None:
    (tmp_path / "snippet.py").write_text(SNIPPET)
    checked = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", str(tmp_path / "snippet.py")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    (error, _) = checked.stdout.splitlines()
    assert "snippet.py:7: error" in error
    assert 'incompatible type "TrainReply"; expected "Released"' in error


def test_the_weights_of_an_answer_are_freed_as_soon_as_nobody_has_it() -> None:
    records = pack_answer(Released(body=REPLY, weights={"w": np.zeros(3, np.float32)}))
    alive = weakref.ref(records)
    gc.disable()
    try:
        assert unpack_answer(records) == REPLY
        assert unpack_weights(records).keys() == {"w"}
        assert weights_at(records) is None
        del records
        assert alive() is None
    finally:
        gc.enable()
