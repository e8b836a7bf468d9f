import json
from pathlib import Path

import pytest
from flwr.app import Context, Message, MessageType, RecordDict

from client.app import SITES_FOLDER, app, site_config
from client.log import LOG
from common.contract import Description, EvaluateReply, Refusal, TrainReply
from common.messages import pack_request, unpack_answer, unpack_weights
from common.state import Arrays
from simulation.grid import InProcessGrid
from tests.builders import PICTURES, PRIVATE, initial_weights, pictures_site, request_for

NAME = "Erika-Mustermann"


@pytest.fixture
def sites(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a simulation's sites."""
    folder = tmp_path / NAME / "sites"
    monkeypatch.setenv(SITES_FOLDER, str(folder))
    return folder


def asked(kind: str, records: RecordDict) -> Message:
    grid = InProcessGrid(app, 1)
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


def test_a_site_is_found_by_its_settings_or_by_its_place(sites: Path) -> None:
    def context(**node: str | int) -> Context:
        return Context(1, 2, dict(node), RecordDict(), {})

    for name in ("001-b", "000-a"):
        (sites / name).mkdir(parents=True)
    assert site_config(context(**{"partition-id": 1})) == sites / "001-b" / "site.yaml"
    assert site_config(context(**{"site-config": "/etc/w/site.yaml"})) == Path("/etc/w/site.yaml")
