"""An export says where it comes from, and any change to it afterwards is named."""

import json
import os
from datetime import UTC, datetime
from pathlib import Path

import pytest

from common.certificates import CertificateError, new_key
from common.export.provenance import PROVENANCE, SIGNATURE, Signer, mark_of, seal, verify
from common.finished import Finished, load_finished
from server.federation.authority import Authority, new_authority
from tests.builders import PICTURES
from tests.finished import finished_run

ROUNDS = [
    {"round": 1, "participants": ["b", "a"]},
    {"round": 2, "participants": ["a", "c"]},
]


def authority(name: str) -> Authority:
    key = new_key()
    made = new_authority(name, key, datetime.now(UTC))
    return Authority(key=key, certificate=made, federation=name)


@pytest.fixture(scope="module")
def ours() -> Authority:
    """Return the authority of the federation that exports."""
    return authority("ours")


@pytest.fixture(scope="module")
def signer(ours: Authority) -> Signer:
    """Return a site of that federation."""
    key = new_key()
    certificate = ours.site_certificate("st-a", key.public_key(), datetime.now(UTC))
    return Signer(key=key, certificate=certificate)


@pytest.fixture
def finished(tmp_path: Path) -> Finished:
    """Return a study of two rounds and three sites."""
    return load_finished(finished_run(tmp_path / "run", *PICTURES, rounds=ROUNDS))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder of two files."""
    (tmp_path / "out" / "bundle").mkdir(parents=True)
    (tmp_path / "out" / "model.onnx").write_bytes(b"weights")
    (tmp_path / "out" / "bundle" / "metadata.json").write_bytes(b"{}")
    return tmp_path / "out"


def test_what_was_not_touched_is_whole_and_names_who_signed_and_took_part(
    folder: Path, finished: Finished, signer: Signer, ours: Authority
) -> None:
    seal(folder, finished, signer)
    found = verify(folder, ours.certificate, "st-a")
    assert (found.wrong, found.signer) == ([], signer.certificate)
    assert found.provenance["participants_by_round"] == {"1": ["b", "a"], "2": ["a", "c"]}
    assert found.provenance["study_digest"] == finished.digest
    mark = mark_of(finished)
    assert mark["wardround.participants"] == "a, b, c"
    assert mark["wardround.rounds"] == "2"


def change(folder: Path) -> None:
    (folder / "model.onnx").write_bytes(b"wEights")


def take_away(folder: Path) -> None:
    (folder / "bundle" / "metadata.json").unlink()


def add(folder: Path) -> None:
    (folder / "bundle" / "more.py").write_bytes(b"")


def add_a_link(folder: Path) -> None:
    (folder / "bundle" / "more").symlink_to(folder.parent)


def add_a_pipe(folder: Path) -> None:
    os.mkfifo(folder / "pipe")


def link(folder: Path) -> None:
    """Put a link to the same content in a file's place."""
    (folder / "model.onnx").rename(folder.parent / "model.onnx")
    (folder / "model.onnx").symlink_to(folder.parent / "model.onnx")


def relist(folder: Path) -> None:
    """Change a file, and write its new hash into the list."""
    change(folder)
    told = json.loads((folder / PROVENANCE).read_text())
    told["participants"] = ["a"]
    (folder / PROVENANCE).write_text(json.dumps(told))


def unsign(folder: Path) -> None:
    (folder / SIGNATURE).unlink()


@pytest.mark.parametrize(
    ("harm", "named"),
    [
        (change, "model.onnx was changed"),
        (take_away, "bundle/metadata.json is missing"),
        (add, "bundle/more.py was added"),
        (add_a_link, "bundle/more is a link, or no file"),
        (add_a_pipe, "pipe is a link, or no file"),
        (link, "model.onnx is a link, or no file"),
        (relist, "provenance.json is not what was signed"),
        (unsign, "signature.json is missing: it was signed by st-a"),
    ],
)
def test_every_change_is_named(
    folder: Path, finished: Finished, signer: Signer, ours: Authority, harm: object, named: str
) -> None:
    seal(folder, finished, signer)
    assert callable(harm)
    harm(folder)
    assert named in verify(folder, ours.certificate, "st-a").wrong


def test_a_site_that_signs_in_the_place_of_the_centre_is_named(
    folder: Path, finished: Finished, signer: Signer, ours: Authority
) -> None:
    seal(folder, finished, signer)
    assert verify(folder, ours.certificate).wrong == [
        "it is signed by st-a, not by wardround server"
    ]


def test_a_signer_of_another_federation_is_named(
    folder: Path, finished: Finished, signer: Signer
) -> None:
    seal(folder, finished, signer)
    (why,) = verify(folder, authority("theirs").certificate).wrong
    assert why.startswith("its signer st-a is not of the authority")
    assert verify(folder, None).wrong == []


@pytest.mark.parametrize("content", [b"", b"[]", b'{"certificate": 1}', b'{"signature": "x"}'])
def test_a_signature_that_cannot_be_read_is_wrong(
    folder: Path, finished: Finished, signer: Signer, content: bytes
) -> None:
    seal(folder, finished, signer)
    (folder / SIGNATURE).write_bytes(content)
    (why,) = verify(folder, None).wrong
    assert why.startswith("signature.json cannot be read")


def test_a_signature_that_was_taken_away_is_missed(
    folder: Path, finished: Finished, signer: Signer, ours: Authority
) -> None:
    seal(folder, finished, signer)
    (folder / SIGNATURE).unlink()
    for known in (None, ours.certificate):
        assert verify(folder, known, "st-a").wrong == [
            "signature.json is missing: it was signed by st-a"
        ]


def test_a_second_export_without_a_key_leaves_no_old_signature(
    folder: Path, finished: Finished, signer: Signer
) -> None:
    seal(folder, finished, signer)
    seal(folder, finished, None)
    assert verify(folder, None).signer is None


@pytest.mark.parametrize(
    "content", [None, b"", b"[]", b'{"files": 1}', b'{"files": {}, "participants": 1}']
)
def test_what_is_no_export_is_told(folder: Path, content: bytes | None) -> None:
    if content is not None:
        (folder / PROVENANCE).write_bytes(content)
    with pytest.raises(CertificateError, match=r"holds no export(:| that can be read)"):
        verify(folder, None)
    with pytest.raises(CertificateError, match=r"gone is no folder; give"):
        verify(folder / "gone", None)
