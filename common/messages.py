"""The wire contract: typed bodies and weights into Flower records and back.

A record holds `body`, one JSON text checked by pydantic on arrival, and, where weights travel,
`weights`, an ArrayRecord. Nothing else is read.
"""

import json
from collections.abc import Mapping
from typing import Any, cast

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, RecordDict
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError

from common.contract import (
    Answer,
    Description,
    EvaluateReply,
    Refusal,
    Released,
    Request,
    TrainReply,
)

Arrays = Mapping[str, NDArray[np.generic]]

_KINDS: dict[str, type[Any]] = {
    kind.__name__: kind for kind in (Request, Description, TrainReply, EvaluateReply, Refusal)
}
_ADAPTERS = {name: TypeAdapter(kind) for name, kind in _KINDS.items()}


class MessageError(ValueError):
    """A message that does not keep the contract; the text says where."""


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
    arrays: dict[str, NDArray[np.generic]] = {}
    for name, array in record.items():
        try:
            arrays[name] = array.numpy()
        except Exception as error:
            raise MessageError(f"tensor {name} cannot be read ({type(error).__name__})") from error
        if list(arrays[name].shape) != list(array.shape):
            raise MessageError(f"tensor {name} is not of the shape that its header tells")
    return arrays


def reply(records: RecordDict, request: Message) -> Message:
    """Return the answer to a Flower message."""
    return Message(records, reply_to=request)


def _packed(body: Request | Answer, weights: Arrays | None) -> RecordDict:
    kind = type(body).__name__
    text = _ADAPTERS[kind].dump_json(body).decode()
    records = RecordDict({"body": ConfigRecord({"kind": kind, "json": text})})
    if weights is not None:
        records["weights"] = ArrayRecord({name: Array(array) for name, array in weights.items()})
    return records


def _body(records: RecordDict, *allowed: type[Any]) -> object:
    names = [kind.__name__ for kind in allowed]
    record = records.config_records.get("body")
    kind = str(record.get("kind")) if record is not None else "nothing"
    if record is None or kind not in names:
        raise MessageError(f"the message holds {kind}, expected {' or '.join(names)}")
    try:
        return _checked(kind, json.loads(str(record["json"])))
    except (KeyError, ValidationError, json.JSONDecodeError) as error:
        raise MessageError(f"the {kind} does not keep the contract: {_short(error)}") from error


def _checked(kind: str, raw: object) -> object:
    known = {field.name for field in _KINDS[kind].__dataclass_fields__.values()}
    if isinstance(raw, dict) and not set(raw) <= known:
        extra = ", ".join(sorted(set(raw) - known))
        raise MessageError(f"the {kind} has unknown fields: {extra}")
    return _ADAPTERS[kind].validate_python(raw)


def _short(error: Exception) -> str:
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
    return type(error).__name__
