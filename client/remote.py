"""The trainer as its courier sees it: behind a Unix socket. Imports no torch.

What comes over the socket was released by the site's gate on the other side, which is why this
file may build a `Released` of it: it adds nothing and takes nothing away.
"""

import logging
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import TypeVar, cast

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from client.progress import StoppedError
from common import trainer_pb2 as wire
from common.bodies import MessageError, packed_body, unpacked_body
from common.contract import (
    Answer,
    Description,
    EvaluateReply,
    Refusal,
    RefusalError,
    Released,
    Request,
    TrainReply,
)
from common.framing import Arrays, arrays_in, gathered, pieces_of
from common.trainer_rpc import TrainerStub

WAIT_S = 60.0
MOST_ATTEMPTS = 3
"""How often a trainer that ends at work is asked: a request that kills it does so no more often."""
_OPTIONS = (
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
)
_log = logging.getLogger(__name__)
_Heard = TypeVar("_Heard")

OnProgress = Callable[[int, int], bool]
"""Called with (steps done, steps of the round); what it returns says whether to go on."""


def go_on(done: int, of: int) -> bool:
    """Tell nobody, and go on."""
    return True


class _EndedError(MessageError):
    """The trainer ended its answer before it was one, as at SIGTERM."""


class RemoteTrainer:
    """The verbs of a `Trainer`, worked off by the trainer that listens on a socket.

    All of them raise RefusalError with the code `trainer` where it does not answer, and
    MessageError where the weights cannot be sent.
    """

    def __init__(
        self, socket: Path, wait_s: float = WAIT_S, on_progress: OnProgress = go_on
    ) -> None:
        """Nothing is connected yet.

        wait_s: how long a trainer that is starting again is waited for. on_progress: who hears of
        each verb that names nobody else.
        """
        self._socket = socket
        self._wait_s = wait_s
        self._on_progress = on_progress

    def describe(self, request: Request) -> Released:
        """Return what the server may know before the first round."""
        return self._asked("Describe", request, None, None, Description)

    def train(
        self, request: Request, weights: Arrays, on_progress: OnProgress | None = None
    ) -> Released:
        """Return the update of one round.

        Raises:
            StoppedError: on_progress returned False. The trainer ends within a step and keeps
                nothing; the same request trains again and is charged once.
        """
        return self._asked("Train", request, weights, on_progress, TrainReply)

    def evaluate(
        self, request: Request, weights: Arrays, on_progress: OnProgress | None = None
    ) -> Released:
        """Return the incoming model's estimates; of its progress only that there is some."""
        return self._asked("Evaluate", request, weights, on_progress, EvaluateReply)

    def consent(self, request: Request) -> Released | None:
        """Return the refusal of a request before its weights are here, None if it may run now."""
        return self._call("Consent", request, None, _consent)

    def _asked(
        self,
        verb: str,
        request: Request,
        weights: Arrays | None,
        on_progress: OnProgress | None,
        kind: type[Answer],
    ) -> Released:
        heard = on_progress or self._on_progress
        return self._call(verb, request, weights, lambda call: _answer(call, heard, kind))

    def _call(
        self,
        verb: str,
        request: Request,
        weights: Arrays | None,
        answer_of: Callable[[grpc.Call], _Heard],
    ) -> _Heard:
        attempt = 1
        while True:
            # Before anything is connected: the server's own weights may not fit into safetensors.
            parts = _parts(request, weights)
            try:
                with closing(_channel(self._socket)) as channel:
                    grpc.channel_ready_future(channel).result(timeout=self._wait_s)
                    return answer_of(getattr(TrainerStub(channel), verb)(parts))
            except (grpc.RpcError, grpc.FutureTimeoutError, MessageError) as error:
                if attempt < MOST_ATTEMPTS and _has_ended(error):
                    # It starts again, and the same request is paid for once.
                    _log.warning("the trainer ended at work (%s); it is asked again", verb)
                    attempt += 1
                    continue
                _log.exception("the trainer at %s does not answer (%s)", self._socket, verb)
                raise RefusalError(
                    "trainer", "the trainer of this site does not answer; its own log says more"
                ) from error


def is_serving(socket: Path, timeout_s: float = 1.0) -> bool:
    """Return whether a trainer listens on the socket and says of itself that it is well."""
    with closing(_channel(socket)) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        try:
            found = stub.Check(health_pb2.HealthCheckRequest(), timeout=timeout_s)
        except grpc.RpcError:
            return False
    return bool(found.status == health_pb2.HealthCheckResponse.SERVING)


def _channel(socket: Path) -> grpc.Channel:
    return grpc.insecure_channel(f"unix:{socket.absolute()}", options=_OPTIONS)


def _parts(request: Request, weights: Arrays | None) -> Iterator[wire.Asked]:
    kind, text = packed_body(request)
    length, pieces = (None, iter(())) if weights is None else pieces_of(weights)
    head = wire.Asked(head=wire.Head(kind=kind, json=text, weights_bytes=length))

    def parts() -> Iterator[wire.Asked]:
        yield head
        for piece in pieces:
            yield wire.Asked(piece=bytes(piece))

    return parts()


def _answer(call: grpc.Call, on_progress: OnProgress, kind: type[Answer]) -> Released:
    for part in call:
        if part.WhichOneof("part") == "head":
            return _released(part.head, call, kind)
        if not on_progress(part.progress.done, part.progress.of):
            call.cancel()
            raise StoppedError
    raise _EndedError("the trainer ended without an answer")


def _consent(call: grpc.Call) -> Released | None:
    for part in call:
        if part.WhichOneof("part") == "progress":
            return None
        return Released(body=cast(Refusal, unpacked_body(part.head.kind, part.head.json, Refusal)))
    raise _EndedError("the trainer ended without an answer")


def _has_ended(error: Exception) -> bool:
    """Whether the trainer's process ended while it worked, killed or not."""
    if isinstance(error, grpc.Call):
        return bool(error.code() == grpc.StatusCode.UNAVAILABLE)
    return isinstance(error, _EndedError)


def _released(head: wire.Head, call: Iterator[wire.Answered], kind: type[Answer]) -> Released:
    body = cast(Answer, unpacked_body(head.kind, head.json, kind, Refusal))
    if not head.HasField("weights_bytes"):
        return Released(body=body)
    framed = gathered((part.piece for part in call), head.weights_bytes)
    return Released(body=body, weights=arrays_in(framed))
