import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from flwr.app import Context, Message, MessageType, RecordDict

from client.app import LISTENER, SITE_CONFIG, SITES_FOLDER, app, site_config
from client.log import LOG
from client.service import serving
from common.contract import Description, EvaluateReply, Refusal, TrainReply
from common.messages import pack_request, unpack_answer, unpack_weights
from common.state import Arrays, digest_of
from simulation.engines.grid import SimulatedGrid, identify
from simulation.engines.inprocess import InProcess
from tests.builders import PICTURES, PRIVATE, initial_weights, pictures_site, request_for
from tests.client.services import LONG, hospital

ROOT = Path(__file__).parents[2]
NAME = "Erika-Mustermann"


@pytest.fixture
def sites(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a simulation's sites."""
    folder = tmp_path / NAME / "sites"
    monkeypatch.setenv(SITES_FOLDER, str(folder))
    return folder


def asked(kind: str, records: RecordDict) -> Message:
    grid = SimulatedGrid(InProcess(app, 1))
    (node,) = grid.get_node_ids()
    (answer,) = grid.send_and_receive([Message(records, dst_node_id=node, message_type=kind)])
    assert not answer.has_error()
    return answer


def ask(kind: str, *overrides: str, weights: Arrays | None = None) -> Message:
    return asked(kind, pack_request(request_for(*overrides), weights))


def told(message: Message) -> str:
    return json.dumps({name: dict(r) for name, r in message.content.config_records.items()})


def refusal(message: Message) -> Refusal:
    answer = unpack_answer(message.content)
    assert isinstance(answer, Refusal)
    assert unpack_weights(message.content) == {}
    assert NAME not in told(message)
    return answer


def test_the_courier_brings_the_trainers_answers(sites: Path) -> None:
    pictures_site(sites / "000-st-a")
    weights = initial_weights(*PICTURES)
    about = unpack_answer(ask(MessageType.QUERY, *PICTURES).content)
    assert isinstance(about, Description)
    assert about.site == "st-a"
    update = ask(MessageType.TRAIN, *PICTURES, weights=weights).content
    assert isinstance(unpack_answer(update), TrainReply)
    assert unpack_weights(update).keys() == weights.keys()
    found = unpack_answer(ask(MessageType.EVALUATE, *PICTURES, weights=weights).content)
    assert isinstance(found, EvaluateReply)
    assert "ERROR" not in (sites / "000-st-a" / LOG).read_text()


def patient_on_both_sides(folder: Path) -> None:
    manifest = folder / "manifest.csv"
    lines = manifest.read_text().splitlines()
    lines[1:3] = [f"0-0.png,normal,{NAME},train", f"1-0.png,normal,{NAME},test"]
    manifest.write_text("\n".join(lines))


def no_manifest(folder: Path) -> None:
    (folder / "manifest.csv").unlink()


def broken_outbox(folder: Path) -> None:
    (folder / "state").mkdir()
    (folder / "state" / "last_reply.safetensors").write_bytes(NAME.encode())


def broken_ledger(folder: Path) -> None:
    ledgers = folder / "state" / "ledgers"
    ledgers.mkdir(parents=True)
    (ledgers / "0123456789abcdef.ledger").write_text(f"{NAME}\n")


def broken_settings(folder: Path) -> None:
    (folder / "site.yaml").write_text(f"name: st-a\nmanifest: m.csv\ndevice: {NAME}\n")


@pytest.mark.parametrize(
    ("breaks", "kind"),
    [
        (patient_on_both_sides, "ValueError"),
        (no_manifest, "ValueError"),
        (broken_outbox, "Error"),
        (broken_settings, "Error"),
    ],
)
def test_no_error_text_with_a_patient_or_a_path_leaves(
    breaks: object, kind: str, sites: Path
) -> None:
    pictures_site(sites / "000-st-a")
    breaks(sites / "000-st-a")  # type: ignore[operator]
    overrides = (*PICTURES, *PRIVATE)
    answer = refusal(ask(MessageType.TRAIN, *overrides, weights=initial_weights(*overrides)))
    assert answer.code == "error"
    assert answer.text == f"{kind} at the site; its own log has the details"
    assert kind in (sites / "000-st-a" / LOG).read_text()


def test_a_broken_ledger_is_a_refusal_that_names_no_file(sites: Path) -> None:
    pictures_site(sites / "000-st-a")
    broken_ledger(sites / "000-st-a")
    overrides = (*PICTURES, *PRIVATE)
    for kind in (MessageType.QUERY, MessageType.TRAIN):
        answer = refusal(ask(kind, *overrides, weights=initial_weights(*overrides)))
        assert answer.code == "privacy"
        assert "ledger of what this site's patients have spent cannot be used" in answer.text
    assert "0123456789abcdef.ledger" in (sites / "000-st-a" / LOG).read_text()


def test_files_that_cannot_be_read_are_counted_not_named(sites: Path) -> None:
    pictures_site(sites / "000-st-a")
    (sites / "000-st-a" / "1-0.png").write_bytes(b"\x89PNG broken")
    answer = refusal(ask(MessageType.QUERY, *PICTURES))
    assert (answer.site, answer.code) == ("st-a", "data")
    assert "files of this site cannot be used" in answer.text
    assert ".png" not in answer.text
    assert "1-0.png" in (sites / "000-st-a" / LOG).read_text()


@pytest.mark.parametrize("kind", [MessageType.QUERY, MessageType.TRAIN, MessageType.EVALUATE])
def test_a_message_that_breaks_the_contract_is_answered_with_where(kind: str, sites: Path) -> None:
    pictures_site(sites / "000-st-a")
    answer = refusal(asked(kind, RecordDict()))
    assert (answer.site, answer.code) == ("st-a", "message")
    assert "expected Request" in answer.text


@pytest.mark.parametrize("kind", [MessageType.QUERY, MessageType.TRAIN, MessageType.EVALUATE])
def test_a_site_whose_folder_is_gone_answers_without_its_path(kind: str, sites: Path) -> None:
    assert not sites.exists()
    answer = refusal(ask(kind, *PICTURES, weights=initial_weights(*PICTURES)))
    assert (answer.code, answer.site) == ("error", "unknown")
    assert "FileNotFoundError" in answer.text


@pytest.fixture
def remote(tmp_path: Path, sockets: Path) -> Iterator[Path]:
    """The socket of a site whose trainer listens."""
    with serving(hospital(tmp_path / NAME / "a", sockets)) as socket:
        yield socket


def at_hospital(kind: str, records: RecordDict, **node: str | float) -> Message:
    """Return the answer of a real hospital's courier."""
    identify()
    message = Message(records, dst_node_id=2, message_type=kind)
    named = {name.replace("_", "-"): value for name, value in node.items()}
    return app(message, Context(1, 2, named, RecordDict(), {}))  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", [MessageType.QUERY, MessageType.TRAIN, MessageType.EVALUATE])
def test_a_courier_with_a_socket_brings_what_one_without_brings(
    kind: str, remote: Path, sites: Path
) -> None:
    pictures_site(sites / "000-st-a")
    weights = None if kind == MessageType.QUERY else initial_weights(*PICTURES)
    here = ask(kind, *PICTURES, weights=weights).content
    records = pack_request(request_for(*PICTURES), weights)
    there = at_hospital(kind, records, trainer_socket=str(remote)).content
    bodies = [unpack_answer(content) for content in (here, there)]
    bodies = [b if isinstance(b, Description) else replace(b, seconds=0.0) for b in bodies]  # type: ignore[call-arg]
    assert bodies[0] == bodies[1]
    assert digest_of(unpack_weights(here)) == digest_of(unpack_weights(there))
    # The courier gives the incoming weights back as soon as it has read them.
    assert unpack_weights(records) == {}


def test_the_node_loop_hears_the_steps_and_its_no_stops_the_round(remote: Path) -> None:
    heard: list[tuple[int, int]] = []
    records = pack_request(request_for(*LONG), initial_weights(*LONG))
    before = LISTENER.set(lambda *step: heard.append(step) is not None)
    try:
        stopped = refusal(at_hospital(MessageType.TRAIN, records, trainer_socket=str(remote)))
    finally:
        LISTENER.reset(before)
    assert (stopped.code, stopped.text) == ("trainer", "stopped, as the server asked")
    assert [of for _, of in heard] == [1_000_000]


def test_a_courier_whose_trainer_is_away_says_so_without_its_path(tmp_path: Path) -> None:
    records = pack_request(request_for(*PICTURES))
    node = {"trainer_socket": str(tmp_path / NAME), "trainer_wait_s": 0.2}
    named = refusal(at_hospital(MessageType.QUERY, records, **node, site_name="st-a"))
    assert (named.site, named.code) == ("st-a", "trainer")
    assert "the trainer of this site does not answer" in named.text
    assert refusal(at_hospital(MessageType.QUERY, records, **node)).site == "unknown"


COURIER = """
import sys, time
began = time.monotonic()
from flwr.app import Context, Message, RecordDict
from client.app import app
from common.contract import Request, StudyReference
from common.messages import pack_request, unpack_answer
from flwr.supercore.task_identity import TaskIdentity
TaskIdentity.task_id = TaskIdentity.run_id = TaskIdentity.node_id = 1
socket, digest, *overrides = sys.argv[1:]
request = Request(study=StudyReference(overrides=overrides, digest=digest))
message = Message(pack_request(request), dst_node_id=2, message_type="query")
node = {"trainer-socket": socket}
answer = app(message, Context(1, 2, node, RecordDict(), {}))
heavy = ("torch", "monai", "opacus", "hydra", "ray", "scipy", "client.trainer")
print(time.monotonic() - began, [name for name in heavy if name in sys.modules])
print(type(unpack_answer(answer.content)).__name__)
"""


def test_a_courier_of_a_hospital_loads_no_torch_in_a_whole_call(
    remote: Path, record_property: Callable[[str, object], None]
) -> None:
    request = request_for(*PICTURES)
    trainer_of = [str(remote), request.study.digest, *request.study.overrides]
    words = [sys.executable, "-c", COURIER, *trainer_of]
    ran = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True)
    (seconds, loaded), kind = ran.stdout.splitlines()[0].split(" ", 1), ran.stdout.split()[-1]
    assert (loaded, kind) == ("[]", "Description")
    record_property("seconds of the imports and one call", float(seconds))


def test_a_site_is_found_by_its_settings_or_by_its_place(sites: Path) -> None:
    def context(**node: str | int) -> Context:
        return Context(1, 2, dict(node), RecordDict(), {})

    for name in ("001-b", "000-a"):
        (sites / name).mkdir(parents=True)
    assert site_config(context(**{"partition-id": 1})) == sites / "001-b" / "site.yaml"
    # One that comes in between is there at the next message.
    (sites / "000-aa").mkdir()
    assert site_config(context(**{"partition-id": 1})) == sites / "000-aa" / "site.yaml"
    assert site_config(context(**{"site-config": "/etc/w/site.yaml"})) == Path("/etc/w/site.yaml")


def test_a_hospital_waits_for_the_disk_and_a_virtual_one_does_not(
    sites: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[int] = []
    real = os.fsync

    def fsync(descriptor: int) -> None:
        synced.append(descriptor)
        real(descriptor)

    site = pictures_site(sites / "000-st-a")
    weights = initial_weights(*PICTURES)
    records = pack_request(request_for(*PICTURES, *PRIVATE), weights)
    monkeypatch.setattr(os, "fsync", fsync)
    virtual = asked(MessageType.TRAIN, records)
    assert isinstance(unpack_answer(virtual.content), TrainReply)
    assert synced == []
    shutil.rmtree(site.parent / "state" / "ledgers")
    node = Context(1, 2, {SITE_CONFIG: str(site)}, RecordDict(), {})
    real_one = app(Message(records, dst_node_id=2, message_type=MessageType.TRAIN), node)
    assert isinstance(unpack_answer(real_one.content), TrainReply)
    assert len(synced) > 5
