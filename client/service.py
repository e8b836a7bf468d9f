"""The trainer as a resident process: gRPC on a Unix socket, with the standard health service.

It keeps what is dear between rounds: the process, the GPU's context and the data that has been
read. It works on one request at a time and knows nothing of Flower. What it sends is what the
site's gate released, refusals included, and how many steps are done.
"""

import logging
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from client.calls import Asked, Bench, Call
from client.listening import listening
from client.log import site_log
from client.progress import OnProgress, StoppedError
from client.refusals import refused
from client.site import load_site
from client.trainer import Trainer, trainer_at
from common import trainer_pb2 as wire
from common.bodies import MessageError, packed_body, unpacked_body
from common.contract import Released, Request
from common.framing import arrays_in, gathered, pieces_of
from common.state import Arrays, digest_of
from common.trainer_rpc import SERVICE, add_trainer

THREADS = 16
"""Calls that are open at once: the one that is worked on, those that wait for it, health."""
GRACE_S = 10.0
"""At the end, work that passes no step in so many seconds, as a long reading, is cut off."""

Work = Callable[[Trainer, Request, Arrays, OnProgress], Released]


class TrainerService:
    """The verbs of common/trainer.proto."""

    def __init__(self, site_yaml: Path) -> None:
        self._site_yaml = site_yaml
        self._name = load_site(site_yaml).name
        self._log = site_log(site_yaml.parent)
        self._bench = Bench()

    def Consent(  # noqa: N802
        self, asked: Iterator[wire.Asked], context: grpc.ServicerContext
    ) -> Iterator[wire.Answered]:
        """Answer whether a request may run now, before its weights are brought here."""
        try:
            request, _ = _head(asked)
            trainer_at(self._site_yaml).consent(request)
        except Exception as error:
            yield from _answer(refused(self._log, self._name, error))
        else:
            yield wire.Answered(progress=wire.Progress(round=request.round))

    def Describe(  # noqa: N802 - a name of gRPC
        self, asked: Iterator[wire.Asked], context: grpc.ServicerContext
    ) -> Iterator[wire.Answered]:
        """Answer what the server may know before the first round."""
        return self._answers("describe", asked, context, lambda at, ask, *_: at.describe(ask))

    def Train(  # noqa: N802
        self, asked: Iterator[wire.Asked], context: grpc.ServicerContext
    ) -> Iterator[wire.Answered]:
        """Answer with an update, and tell each step before."""
        return self._answers("train", asked, context, Trainer.train)

    def Evaluate(  # noqa: N802
        self, asked: Iterator[wire.Asked], context: grpc.ServicerContext
    ) -> Iterator[wire.Answered]:
        """Answer with the incoming model's estimates."""
        return self._answers("evaluate", asked, context, Trainer.evaluate)

    def stop(self) -> None:
        """End every call at its next step."""
        self._bench.stop()

    def end(self) -> None:
        """Return when nothing is worked on any more, or leave the process after a time of grace."""
        if not self._bench.ended(GRACE_S):
            self._log.warning("the trainer ends in the middle of its work, which is not kept")
            logging.shutdown()
            # Every file is whole or absent at any instruction, so this is a lawful end.
            os._exit(0)

    def _answers(
        self,
        verb: str,
        asked: Iterator[wire.Asked],
        context: grpc.ServicerContext,
        work: Work,
    ) -> Iterator[wire.Answered]:
        call, round_number = Call(), 0
        if not context.add_callback(call.stop):
            return
        try:
            request, length = _head(asked)
            round_number = request.round
            self._bench.check(verb, request)
            # What nobody approved may not fill the memory either.
            trainer_at(self._site_yaml).consent(request)
            self._start(call, verb, request, gathered(_pieces(asked), length), work)
        except Exception as error:
            if call.stopped:
                return
            call.finish(refused(self._log, self._name, error))
        for done, of in call.events():
            yield wire.Answered(progress=wire.Progress(done=done, of=of, round=round_number))
        if call.released is not None and not call.stopped:
            yield from _answer(call.released)

    def _start(
        self, call: Call, verb: str, request: Request, framed: bytearray, work: Work
    ) -> None:
        # A function of its own: the weights are given back before the answer is sent.
        weights = arrays_in(framed) if framed else {}
        asked = Asked(verb, request, digest_of(weights))
        self._bench.start(call, asked, lambda: self._worked(call, work, request, weights))

    def _worked(self, call: Call, work: Work, request: Request, weights: Arrays) -> Released:
        try:
            # Made anew for each call, so that the policy is the one that stands in its file now;
            # what is dear is kept by the modules.
            return work(trainer_at(self._site_yaml), request, weights, call.step)
        except StoppedError:
            self._log.info("round %d was stopped; nothing of it is kept", request.round)
            raise
        except Exception as error:
            return refused(self._log, self._name, error)


@contextmanager
def serving(site_yaml: Path) -> Iterator[Path]:
    """Answer on the site's socket until the block ends, and give the socket's path.

    At the end every call is stopped within a step.

    Raises:
        SettingsError: the site's settings cannot be used.
        ListeningError: the socket cannot or may not be listened on.
    """
    path = load_site(site_yaml).socket_path
    service, healthy = TrainerService(site_yaml), health.HealthServicer()
    server = grpc.server(ThreadPoolExecutor(THREADS, thread_name_prefix="call"))
    add_trainer(service, server)
    health_pb2_grpc.add_HealthServicer_to_server(healthy, server)
    with listening(path, server.add_insecure_port):
        server.start()
        for name in ("", SERVICE):
            healthy.set(name, health_pb2.HealthCheckResponse.SERVING)
        try:
            yield path
        finally:
            healthy.enter_graceful_shutdown()
            service.stop()
            server.stop(grace=None).wait()
            service.end()


def _head(asked: Iterator[wire.Asked]) -> tuple[Request, int]:
    first = next(asked, wire.Asked())
    if first.WhichOneof("part") != "head":
        raise MessageError("the message holds no head")
    request = unpacked_body(first.head.kind, first.head.json, Request)
    return cast(Request, request), first.head.weights_bytes


def _pieces(asked: Iterator[wire.Asked]) -> Iterator[bytes]:
    for part in asked:
        yield part.piece


def _answer(released: Released) -> Iterator[wire.Answered]:
    kind, text = packed_body(released.body)
    if released.weights is None:
        yield wire.Answered(head=wire.Head(kind=kind, json=text))
        return
    length, pieces = pieces_of(released.weights)
    yield wire.Answered(head=wire.Head(kind=kind, json=text, weights_bytes=length))
    for piece in pieces:
        yield wire.Answered(piece=bytes(piece))
