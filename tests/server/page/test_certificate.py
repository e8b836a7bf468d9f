"""A certificate of the house is shown whatever its key is, with its chain, for the names in it."""

import logging
import os
import ssl
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID
from starlette.responses import PlainTextResponse
from starlette.testclient import TestClient

from common.certificates import CertificateError
from server.page.centre import centre_pages
from server.page.certificate import HousePair, names_of
from server.page.door import PageDoor
from tests.server.federation.homes import a_home

Key = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey


def written(
    folder: Path, key: Key, names: Sequence[str], times: int = 1, word: bytes | None = None
) -> HousePair:
    """Write a certificate that signed itself, so often as its own chain, and its key."""
    name, now = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "x")]), datetime.now(UTC)
    made = x509.CertificateBuilder(name, name, key.public_key(), 1, now, now + timedelta(9))
    if names:
        of = x509.SubjectAlternativeName([x509.DNSName(name) for name in names])
        made = made.add_extension(of, critical=False)
    pem = made.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    pair = HousePair(certificate=folder / "house.pem", key=folder / "house.key")
    pair.certificate.write_bytes(pem * times)
    locked = serialization.BestAvailableEncryption(word) if word else serialization.NoEncryption()
    pair.key.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, locked)
    )
    os.chmod(pair.key, 0o600)
    return pair


@pytest.mark.parametrize(
    ("key", "times"),
    [
        (rsa.generate_private_key(65537, 2048), 1),
        (ec.generate_private_key(ec.SECP256R1()), 1),
        (ec.generate_private_key(ec.SECP384R1()), 2),
    ],
    ids=["rsa", "p256", "chain"],
)
def test_any_key_and_a_chain_are_shown(tmp_path: Path, key: Key, times: int) -> None:
    pair = written(tmp_path, key, ["c.test", "*.house.test"], times)
    found = pair.load_into(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))
    assert names_of(found) == ["c.test", "*.house.test"]


@pytest.mark.parametrize("wrong", ["mode", "password", "absent", "another", "none"])
def test_what_cannot_be_shown_is_named(tmp_path: Path, wrong: str) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    names = [] if wrong == "none" else ["c.test"]
    pair = written(tmp_path, key, names, word=b"secret" if wrong == "password" else None)
    if wrong == "mode":
        os.chmod(pair.key, 0o640)
    elif wrong == "absent":
        pair.certificate.unlink()
    elif wrong == "another":
        (tmp_path / "b").mkdir()
        other = written(tmp_path / "b", ec.generate_private_key(ec.SECP256R1()), names)
        pair.key.write_bytes(other.key.read_bytes())
    told = {"mode": "chmod 600", "none": "subjectAltName"}.get(wrong, "cannot be shown")
    with pytest.raises(CertificateError, match=told):
        names_of(pair.load_into(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)))


@pytest.mark.parametrize(
    ("host", "status"),
    [("centre.house.test", 200), ("house.test", 421), ("a.b.house.test", 421), ("*.x", 421)],
)
def test_a_star_stands_for_one_label(tmp_path: Path, host: str, status: int) -> None:
    pages = centre_pages(a_home(tmp_path / "centre"))
    names, log = ["*.house.test"], logging.getLogger("test")
    door = PageDoor(PlainTextResponse("in"), tmp_path, names, pages, log)
    client = TestClient(door, base_url="https://x.house.test")
    assert client.get("/enter", headers={"host": host}).status_code == status
