import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path

import grpc
import numpy as np
import pytest

from client.log import LOG
from client.privacy.speech import speakable
from client.remote import RemoteTrainer, is_serving
from client.service import serving
from common import trainer_pb2 as wire
from common.contract import Description, RefusalError
from common.framing import FramingError
from common.trainer_rpc import add_trainer
from tests.builders import PICTURES, request_for
from tests.client.services import hospital, socket_of

REQUEST = request_for(*PICTURES)


def refusal(path: Path, wait_s: float = 0.3) -> str:
    """Return the text that a courier tells where the trainer at a socket does not do its part."""
    with pytest.raises(RefusalError) as refused:
        RemoteTrainer(path, wait_s).describe(REQUEST)
    assert refused.value.code == "trainer"
    assert speakable(refused.value.text)
    assert str(path) not in refused.value.text
    return refused.value.text


def test_a_trainer_that_is_not_there_is_a_refusal_and_the_log_says_where(
    sockets: Path, caplog: pytest.LogCaptureFixture
) -> None:
    text = "the trainer of this site does not answer; its own log says more"
    absent, left, file = sockets / "absent", sockets / "left", sockets / "file"
    with closing(socket.socket(socket.AF_UNIX)) as dead:
        dead.bind(str(left))
    file.write_text("no socket")
    for path in (absent, left, file, sockets / "no" / "folder"):
        assert refusal(path) == text
        assert str(path) in caplog.text
        assert not is_serving(path)


def test_a_trainer_that_is_starting_again_is_waited_for(tmp_path: Path, sockets: Path) -> None:
    site = hospital(tmp_path / "a", sockets)
    with ThreadPoolExecutor() as threads:
        early = threads.submit(RemoteTrainer(socket_of(site)).describe, REQUEST)
        assert not early.done()
        with serving(site):
            assert isinstance(early.result().body, Description)
    assert "ERROR" not in (site.parent / LOG).read_text()


class Liar:
    """Answers every verb with the same parts."""

    def __init__(self, *parts: wire.Answered) -> None:
        self.parts = parts

    def Describe(self, asked: Iterator[wire.Asked], _: object) -> Iterator[wire.Answered]:  # noqa: N802
        yield from self.parts

    Consent = Train = Evaluate = Describe


@contextmanager
def lying(path: Path, *parts: wire.Answered) -> Iterator[None]:
    server = grpc.server(ThreadPoolExecutor(2))
    add_trainer(Liar(*parts), server)
    server.add_insecure_port(f"unix:{path}")
    server.start()
    try:
        yield
    finally:
        server.stop(None).wait()


def head(kind: str, json: str, **more: int) -> wire.Answered:
    return wire.Answered(head=wire.Head(kind=kind, json=json, **more))


REFUSAL = '{"site":"st-a","code":"data","text":"no"}'


@pytest.mark.parametrize(
    "parts",
    [
        (),
        (wire.Answered(progress=wire.Progress(done=1, of=2)),),
        (head("Request", "{}"),),
        (head("TrainReply", "{}"),),
        (head("Description", "no json"),),
        (head("Refusal", REFUSAL, weights_bytes=9),),
        (head("Refusal", REFUSAL, weights_bytes=1), wire.Answered(piece=b"ab")),
        (head("Refusal", REFUSAL, weights_bytes=2**63),),
    ],
)
def test_what_is_no_answer_of_a_trainer_is_a_refusal(
    parts: tuple[wire.Answered, ...], sockets: Path
) -> None:
    with lying(sockets / "t", *parts):
        told = refusal(sockets / "t", wait_s=10.0)
    assert "the trainer of this site does not answer" in told


def test_weights_that_do_not_travel_are_told_before_anything_is_connected(sockets: Path) -> None:
    with pytest.raises(FramingError):
        RemoteTrainer(sockets / "absent").train(REQUEST, {"w": np.zeros(1, np.complex64)})


def test_progress_is_told_in_order(sockets: Path) -> None:
    seen: list[tuple[int, int]] = []
    steps = [(0, 0), (1, 2), (2, 2)]
    told = [wire.Answered(progress=wire.Progress(done=d, of=o, round=1)) for d, o in steps]
    with lying(sockets / "t", *told, head("Refusal", REFUSAL)):
        remote = RemoteTrainer(sockets / "t")
        remote.train(REQUEST, {}, lambda *step: seen.append(step) is None)
    assert seen == steps
