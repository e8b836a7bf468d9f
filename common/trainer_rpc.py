"""The calls of common/trainer.proto: a stream of `Asked` up, a stream of `Answered` down."""

from collections.abc import Callable, Iterator
from typing import Any, Protocol

import grpc

from common import trainer_pb2 as wire

SERVICE = "wardround.Trainer"
_METHODS = ("Consent", "Describe", "Train", "Evaluate")
Verb = Callable[[Iterator[wire.Asked], grpc.ServicerContext], Iterator[wire.Answered]]


class TrainerServicer(Protocol):
    """What answers the calls; their names are gRPC's."""

    @property
    def Consent(self) -> Verb: ...  # noqa: N802, D102
    @property
    def Describe(self) -> Verb: ...  # noqa: N802, D102
    @property
    def Train(self) -> Verb: ...  # noqa: N802, D102
    @property
    def Evaluate(self) -> Verb: ...  # noqa: N802, D102


class TrainerStub:
    """The calls over a channel."""

    def __init__(self, channel: grpc.Channel) -> None:
        self.Consent, self.Describe, self.Train, self.Evaluate = (
            _call(channel, name) for name in _METHODS
        )


def add_trainer(servicer: TrainerServicer, server: grpc.Server) -> None:
    """Let a server answer by the servicer."""
    handlers = {
        name: grpc.stream_stream_rpc_method_handler(
            getattr(servicer, name),
            request_deserializer=wire.Asked.FromString,
            response_serializer=wire.Answered.SerializeToString,
        )
        for name in _METHODS
    }
    handler = grpc.method_handlers_generic_handler(SERVICE, handlers)
    server.add_generic_rpc_handlers((handler,))


def _call(channel: grpc.Channel, name: str) -> Any:  # noqa: ANN401 - gRPC has no types
    return channel.stream_stream(
        f"/{SERVICE}/{name}",
        request_serializer=wire.Asked.SerializeToString,
        response_deserializer=wire.Answered.FromString,
    )
