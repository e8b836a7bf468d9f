"""What a node does with a message, between a trainer and a centre of httpx's own kind."""

import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

import httpx
import pytest
from flwr.app import Message, MessageType
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

from client.answering import Answers
from client.fleet import Received
from client.service import serving
from client.status import StatusFile
from client.weights import PATH, Transfers
from client.words import Teller
from common.bundle import code_free_bundle
from common.contract import Refusal, TrainReply
from common.framed_files import WeightsReference
from common.framing import pieces_of
from common.messages import pack_request, unpack_answer
from tests.builders import initial_weights, request_for
from tests.client.services import SGD, decide, hospital, socket_of, with_approvals

WEIGHTS = b"".join(pieces_of(initial_weights(*SGD))[1])
NAMED = WeightsReference(sha256=sha256(WEIGHTS).hexdigest(), length_bytes=len(WEIGHTS))


@dataclass
class Centre:
    """Gives the weights, and notes what it was asked."""

    asked: list[str] = field(default_factory=list)

    def answer(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(f"{request.method} {request.url.path}")
        if request.method == "POST":
            return httpx.Response(200, json={})
        return httpx.Response(200, stream=httpx.ByteStream(WEIGHTS))


@pytest.fixture
def site(tmp_path: Path, sockets: Path) -> Iterator[Path]:
    with serving(hospital(tmp_path / "a", sockets)):
        yield tmp_path / "a" / "site.yaml"


@pytest.fixture
def centre() -> Centre:
    return Centre()


@pytest.fixture
def answers(site: Path, centre: Centre) -> Iterator[Answers]:
    transport = httpx.MockTransport(centre.answer)
    with httpx.Client(base_url="https://centre", transport=transport) as client:
        teller = Teller(client, logging.getLogger(__name__))
        yield Answers(
            site="a",
            socket=socket_of(site),
            status=StatusFile(site.parent / "state"),
            teller=teller,
            weights=Transfers(client, teller.step),
        )
        teller.close()


def received(fab_hash: str) -> Received:
    TaskIdentity.task_id = TaskIdentity.run_id = 1
    TaskIdentity.node_id = 2
    records = pack_request(request_for(*SGD), weights_at=NAMED)
    run = Run.create_empty(1)
    run.fab_hash, run.override_config = fab_hash, {"run": "2026_study"}
    return Received(Message(records, dst_node_id=2, message_type=MessageType.TRAIN), run)


OURS = code_free_bundle().sha256
GET = f"GET {PATH}/2026_study/{NAMED.sha256}"


def test_weights_are_brought_once_the_trainer_consents(
    site: Path, centre: Centre, answers: Answers
) -> None:
    with_approvals(site)
    refusal = unpack_answer(answers.to(received(OURS)).content)
    assert isinstance(refusal, Refusal)
    assert (refusal.code, GET in centre.asked) == ("policy", False)
    decide("approve", site, request_for(*SGD).study.digest)
    assert isinstance(unpack_answer(answers.to(received(OURS)).content), TrainReply)
    assert centre.asked.count(GET) == 1


def test_another_bundle_is_refused_before_the_trainer_hears_of_it(
    centre: Centre, answers: Answers
) -> None:
    refusal = unpack_answer(answers.to(received("0" * 64)).content)
    assert isinstance(refusal, Refusal)
    assert (refusal.code, GET in centre.asked) == ("bundle", False)
