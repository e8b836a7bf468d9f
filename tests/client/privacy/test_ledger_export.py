import json
from pathlib import Path
from typing import Any

import pytest

from client.privacy.data_set import DataSet
from client.privacy.ledger import Ledger, LedgerError
from client.privacy.ledger_export import (
    SIGNING_KEY,
    check_continues,
    export_of,
    read_export,
    signing_key,
)
from tests.client.privacy.ledgers import STEPS, charged, data_set


def exported(ledger: Ledger, path: Path) -> Path:
    """Write the ledger's export."""
    path.write_text(json.dumps(export_of(ledger)))
    return path


def test_an_export_tells_what_was_spent_and_is_genuine(tmp_path: Path) -> None:
    ledger = charged(tmp_path / "ledgers", 3)
    export = read_export(exported(ledger, tmp_path / "e.json"))
    delta = 1 / 6
    assert export["data_set"] == data_set().fingerprint
    assert export["patients"] == 3
    assert export["epsilon"]["delta"] == delta
    assert export["epsilon"]["life"] == ledger.epsilon(delta)
    assert export["epsilon"]["studies"] == {
        study: ledger.epsilon(delta, study) for study in ("study-0", "study-1")
    }
    assert export["head"] == {"seq": 4, "hash": ledger.chain().newest.hash}


def test_no_export_holds_salt_or_patients(tmp_path: Path) -> None:
    patients = frozenset({"Ada Lovelace"})
    data = DataSet(fingerprint=data_set().fingerprint, patients=patients)
    ledger = Ledger.open(tmp_path / "ledgers", data)
    text = exported(ledger, tmp_path / "e.json").read_text()
    secret = json.loads(ledger.chain().rows[0].secret)
    assert secret["salt"] not in text
    assert secret["patients"][0] not in text
    assert "Lovelace" not in text


@pytest.mark.parametrize(
    ("names", "value"),
    [
        (("patients",), 4),
        (("epsilon", "life"), 0.1),
        (("rows", 2, "body", "steps"), 1),
        (("head", "seq"), 1),
        (("format",), "other"),
    ],
)
def test_a_changed_export_is_found(tmp_path: Path, names: tuple[Any, ...], value: object) -> None:
    path = exported(charged(tmp_path / "ledgers", 2), tmp_path / "e.json")
    export = part = json.loads(path.read_text())
    for name in names[:-1]:
        part = part[name]
    part[names[-1]] = value
    path.write_text(json.dumps(export))
    with pytest.raises(LedgerError, match="the signature does not fit"):
        read_export(path)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"signature": "00", "public_key": "00"}', None])
def test_what_is_no_export_is_refused(tmp_path: Path, text: str | None) -> None:
    path = tmp_path / "e.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(LedgerError, match="not an export"):
        read_export(path)


def test_a_later_ledger_goes_on_from_an_export_and_an_older_one_does_not(tmp_path: Path) -> None:
    ledger = charged(tmp_path / "ledgers", 2)
    older = ledger.chain()
    ledger.charge("new", "study-0", STEPS, "training")
    export = export_of(ledger)
    ledger.charge("newer", "study-0", STEPS, "training")
    check_continues(ledger.chain(), export, ledger.path)
    for chain in (older, charged(tmp_path / "other", 5).chain()):
        with pytest.raises(LedgerError, match="does not go on from the export"):
            check_continues(chain, export, ledger.path)


def test_the_key_is_made_once_and_is_its_owners_alone(tmp_path: Path) -> None:
    first = signing_key(tmp_path).private_bytes_raw()
    assert signing_key(tmp_path).private_bytes_raw() == first
    assert [file.name for file in tmp_path.iterdir()] == [SIGNING_KEY]
    assert (tmp_path / SIGNING_KEY).stat().st_mode & 0o777 == 0o600


def test_a_broken_key_is_told_and_not_replaced(tmp_path: Path) -> None:
    (tmp_path / SIGNING_KEY).write_bytes(b"short")
    with pytest.raises(LedgerError, match="can be neither read nor made"):
        signing_key(tmp_path)
    assert (tmp_path / SIGNING_KEY).read_bytes() == b"short"
