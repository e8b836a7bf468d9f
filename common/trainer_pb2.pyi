from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Head(_message.Message):
    __slots__ = ("kind", "json", "weights_bytes")
    KIND_FIELD_NUMBER: _ClassVar[int]
    JSON_FIELD_NUMBER: _ClassVar[int]
    WEIGHTS_BYTES_FIELD_NUMBER: _ClassVar[int]
    kind: str
    json: str
    weights_bytes: int
    def __init__(self, kind: _Optional[str] = ..., json: _Optional[str] = ..., weights_bytes: _Optional[int] = ...) -> None: ...

class Progress(_message.Message):
    __slots__ = ("done", "of", "round")
    DONE_FIELD_NUMBER: _ClassVar[int]
    OF_FIELD_NUMBER: _ClassVar[int]
    ROUND_FIELD_NUMBER: _ClassVar[int]
    done: int
    of: int
    round: int
    def __init__(self, done: _Optional[int] = ..., of: _Optional[int] = ..., round: _Optional[int] = ...) -> None: ...

class Asked(_message.Message):
    __slots__ = ("head", "piece")
    HEAD_FIELD_NUMBER: _ClassVar[int]
    PIECE_FIELD_NUMBER: _ClassVar[int]
    head: Head
    piece: bytes
    def __init__(self, head: _Optional[_Union[Head, _Mapping]] = ..., piece: _Optional[bytes] = ...) -> None: ...

class Answered(_message.Message):
    __slots__ = ("progress", "head", "piece")
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    HEAD_FIELD_NUMBER: _ClassVar[int]
    PIECE_FIELD_NUMBER: _ClassVar[int]
    progress: Progress
    head: Head
    piece: bytes
    def __init__(self, progress: _Optional[_Union[Progress, _Mapping]] = ..., head: _Optional[_Union[Head, _Mapping]] = ..., piece: _Optional[bytes] = ...) -> None: ...
