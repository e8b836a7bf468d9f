"""The wire contract: typed bodies and weights into Flower records and back.

A record holds `body`, one JSON text checked by pydantic on arrival, and, where weights travel,
`weights`, an ArrayRecord of one array: all tensors as safetensors (common/framing.py). Over a
real network the weights lie in a file beside the message (common/framed_files.py), and `weights-at`
names it: Flower would hold every message whole, in several forms, in each of its processes.
Nothing else is read.
"""

from typing import Any, TypeVar, cast

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
from common.framed_files import WeightsReference
from common.framing import Arrays, Framed, arrays_in, framed

Kind = TypeVar("Kind", ArrayRecord, ConfigRecord)
FRAMED, WEIGHTS, WEIGHTS_AT = "safetensors", "weights", "weights-at"


def pack_request(
    request: Request, weights: Arrays | None = None, weights_at: WeightsReference | None = None
) -> RecordDict:
    """Return the records of what a server asks, with weights in them or beside them."""
    records = _packed(request, weights)
    if weights_at is not None:
        records[WEIGHTS_AT] = _named(weights_at)
    return records


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
    whole = framed_weights(records)
    return {} if whole is None else arrays_in(whole)


def framed_weights(records: RecordDict) -> Framed | None:
    """Return the weights of a message as their bytes; None where none travelled in it.

    Raises:
        MessageError: a record of another form.
    """
    record = _record_of(records, WEIGHTS, ArrayRecord)
    if record is None:
        return None
    array = record.get(FRAMED)
    if array is None or array.stype != FRAMED:
        raise MessageError("the weights are not safetensors bytes")
    return array.data


def weights_at(records: RecordDict) -> WeightsReference | None:
    """Return the name of the weights beside a message; None where there are none.

    Raises:
        MessageError: a record of another form.
    """
    record = _record_of(records, WEIGHTS_AT, ConfigRecord)
    if record is None:
        return None
    named: Any = record
    try:
        return WeightsReference(sha256=named.get("sha256"), length_bytes=named.get("bytes"))
    except ValueError as error:
        raise MessageError("the weights beside a message are not named as such") from error


def put_in(records: RecordDict, whole: Framed) -> None:
    """Put the weights that lay beside a message into it, without a copy of them."""
    records.pop(WEIGHTS_AT, None)
    records[WEIGHTS] = _record(whole)


def put_beside(records: RecordDict, reference: WeightsReference) -> None:
    """Leave the name of a message's weights in it, which lie beside it now."""
    records.pop(WEIGHTS, None)
    records[WEIGHTS_AT] = _named(reference)


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
        records[WEIGHTS] = _record(framed(weights))
    return records


def _record_of(records: RecordDict, name: str, kind: type[Kind]) -> Kind | None:
    # Not by records.array_records: that is an object which refers to itself and to the records, so
    # the weights of an answer would stay in memory until the next collection of cycles.
    found = records.get(name)
    return found if isinstance(found, kind) else None


def _record(whole: Framed) -> ArrayRecord:
    record = ArrayRecord({FRAMED: Array("uint8", (len(whole),), FRAMED, b"")})
    # Flower's constructors take bytes alone, into which others' memory would have to be copied.
    record[FRAMED].data = cast(bytes, whole)
    return record


def _named(reference: WeightsReference) -> ConfigRecord:
    return ConfigRecord({"sha256": reference.sha256, "bytes": reference.length_bytes})


def _body(records: RecordDict, *allowed: type[Any]) -> object:
    record = _record_of(records, "body", ConfigRecord)
    kind = str(record.get("kind")) if record is not None else "nothing"
    text = str(record.get("json")) if record is not None else ""
    return unpacked_body(kind, text, *allowed)
