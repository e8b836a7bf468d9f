"""The bodies of the contract as JSON and back, checked by pydantic on arrival; without Flower.

What carries them is told apart: common/messages.py puts them into Flower records, client/service.py
and client/remote.py into the messages of common/trainer.proto.
"""

import json
from typing import Any

from pydantic import TypeAdapter, ValidationError

from common.contract import Answer, Description, EvaluateReply, Refusal, Request, TrainReply

_KINDS: dict[str, type[Any]] = {
    kind.__name__: kind for kind in (Request, Description, TrainReply, EvaluateReply, Refusal)
}
_ADAPTERS = {name: TypeAdapter(kind) for name, kind in _KINDS.items()}


class MessageError(ValueError):
    """A message that does not keep the contract; the text says where."""


def packed_body(body: Request | Answer) -> tuple[str, str]:
    """Return the kind of a body and its JSON."""
    kind = type(body).__name__
    return kind, _ADAPTERS[kind].dump_json(body).decode()


def unpacked_body(kind: str, text: str, *allowed: type[Any]) -> object:
    """Return the body that a text of JSON tells, of one of the kinds that are allowed.

    Raises:
        MessageError: another kind, no JSON, or a field that is missing, extra or of another type.
    """
    names = [known.__name__ for known in allowed]
    if kind not in names:
        raise MessageError(f"the message holds {kind}, expected {' or '.join(names)}")
    try:
        return _checked(kind, json.loads(text))
    except (ValidationError, json.JSONDecodeError, RecursionError) as error:
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
