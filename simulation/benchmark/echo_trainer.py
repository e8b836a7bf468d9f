"""Trainers without data or work, behind the sockets of real nodes: what a network costs alone.

    python -m simulation.benchmark.echo_trainer SOCKET...     a site is named by its folder

Each answers as client/service.py does, with the weights that came.
"""

import signal
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import cast

import grpc

from common import trainer_pb2 as wire
from common.bodies import packed_body, unpacked_body
from common.contract import Answer, Description, EvaluateReply, Request, TrainReply
from common.supervision import end_with_supervisor
from common.trainer_rpc import add_trainer


class Echo:
    """The verbs of common/trainer.proto."""

    def __init__(self, site: str) -> None:
        self._site = site

    def Consent(  # noqa: N802 - a name of gRPC
        self, asked: Iterator[wire.Asked], context: grpc.ServicerContext
    ) -> Iterator[wire.Answered]:
        """Answer that every request may run."""
        yield wire.Answered(progress=wire.Progress(round=_round(next(asked))))

    def Describe(  # noqa: N802
        self, asked: Iterator[wire.Asked], context: grpc.ServicerContext
    ) -> Iterator[wire.Answered]:
        """Answer as a site of ten patients."""
        about = Description(
            site=self._site, patients_train=10, patients_held_out=0, images_train=10, bad_files=0
        )
        yield _head(about)

    def Train(  # noqa: N802
        self, asked: Iterator[wire.Asked], context: grpc.ServicerContext
    ) -> Iterator[wire.Answered]:
        """Answer with the weights that came."""
        first = next(asked)
        pieces = [part.piece for part in asked]
        number = _round(first)
        done = TrainReply(site=self._site, round=number, patients=10, steps=0, seconds=0.0)
        yield _head(done, first.head.weights_bytes)
        for piece in pieces:
            yield wire.Answered(piece=piece)

    def Evaluate(  # noqa: N802
        self, asked: Iterator[wire.Asked], context: grpc.ServicerContext
    ) -> Iterator[wire.Answered]:
        """Answer that no patient is held out."""
        number = _round(next(asked))
        yield _head(EvaluateReply(site=self._site, round=number, seconds=0.0, estimates={}))


def _round(first: wire.Asked) -> int:
    request = unpacked_body(first.head.kind, first.head.json, Request)
    return cast(Request, request).round


def _head(body: Answer, weights_bytes: int | None = None) -> wire.Answered:
    kind, text = packed_body(body)
    return wire.Answered(head=wire.Head(kind=kind, json=text, weights_bytes=weights_bytes))


def main() -> None:
    """Serve every socket until SIGTERM."""
    end_with_supervisor()
    ends = {signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, ends)
    servers = []
    for socket in map(Path, sys.argv[1:]):
        server = grpc.server(ThreadPoolExecutor(2))
        add_trainer(Echo(socket.parent.name), server)
        server.add_insecure_port(f"unix:{socket}")
        server.start()
        servers.append(server)
    signal.sigwait(ends)


if __name__ == "__main__":
    main()
