"""The wire contract: typed bodies and weights into Flower records and back.

A record holds `body`, one JSON text checked by pydantic on arrival, and, where weights travel,
`weights`, an ArrayRecord of one array: all tensors as safetensors (common/framing.py). Over a
network Flower sends every array in two requests at least, so one array is much sooner there than
one a tensor. Nothing else is read.
"""

from typing import Any, cast

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, RecordDict

# By this name the apps know it.
from common.bodies import MessageError as MessageError
from common.bodies import packed_body, unpacked_body
from common.contract import (
    Answer,
    Description,
    EvaluateReply,
    Refusal,
    Released,
    Request,
    TrainReply,
)
from common.framing import Arrays, arrays_in, gathered, pieces_of

FRAMED = "safetensors"


def pack_request(request: Request, weights: Arrays | None = None) -> RecordDict:
    """Return the records of what a server asks."""
    return _packed(request, weights)


def pack_answer(released: Released) -> RecordDict:
    """Return the records of a site's answer: of what its gate released, and of nothing else."""
    return _packed(released.body, released.weights)


def unpack_request(records: RecordDict) -> Request:
    """Return what the server asks.

    Raises:
        MessageError: no body, another kind, or a field that is missing, extra or of another type.
    """
    return cast(Request, _body(records, Request))


def unpack_answer(records: RecordDict) -> Answer:
    """Return what a site answers.

    Raises:
        MessageError: as for unpack_request.
    """
    return cast(Answer, _body(records, TrainReply, EvaluateReply, Description, Refusal))


def unpack_weights(records: RecordDict) -> Arrays:
    """Return the weights of a message; empty where none travelled.

    Raises:
        MessageError: an array whose bytes are not what its header says.
    """
    record = records.array_records.get("weights")
    if record is None:
        return {}
    try:
        framed = record[FRAMED].numpy()
    except Exception as error:
        raise MessageError(f"the weights cannot be read ({type(error).__name__})") from error
    if framed.dtype != np.uint8 or framed.ndim != 1:
        raise MessageError("the weights are not safetensors bytes")
    return arrays_in(framed.data)


def context_of(message: Message, node_config: dict[str, str | float]) -> Context:
    """Return what a ClientApp is called with, for a node that keeps nothing between messages."""
    return Context(
        run_id=message.metadata.run_id,
        node_id=message.metadata.dst_node_id,
        node_config=dict(node_config),
        state=RecordDict(),
        run_config={},
    )


def reply(records: RecordDict, request: Message) -> Message:
    """Return the answer to a Flower message."""
    return Message(records, reply_to=request)


def _packed(body: Request | Answer, weights: Arrays | None) -> RecordDict:
    kind, text = packed_body(body)
    records = RecordDict({"body": ConfigRecord({"kind": kind, "json": text})})
    if weights is not None:
        length, pieces = pieces_of(weights)
        framed = np.frombuffer(gathered(pieces, length), np.uint8)
        records["weights"] = ArrayRecord({FRAMED: Array(framed)})
    return records


def _body(records: RecordDict, *allowed: type[Any]) -> object:
    record = records.config_records.get("body")
    kind = str(record.get("kind")) if record is not None else "nothing"
    text = str(record.get("json")) if record is not None else ""
    return unpacked_body(kind, text, *allowed)
