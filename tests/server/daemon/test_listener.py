"""The public door, by what it does with single requests; tests/integration/network has real TLS."""

import asyncio
import json
from base64 import b64encode
from collections.abc import MutableMapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from flwr.supercore.constant import FLEET_HTTP_PUBLIC_KEY_HEADER
from flwr.supercore.primitives.asymmetric import public_key_to_bytes

from common.certificates import new_key, signing_request
from server.daemon.desk import Desk
from server.daemon.listener import FLEET_PATHS, PEER, WORD_PATH, Door, Peer
from server.daemon.tray import Tray
from server.federation.enrolment import admit, revoke
from server.federation.home import Home
from server.federation.registry import Registry
from server.presence import Presence
from tests.server.federation.homes import a_home

PULL = "/v1/fleet/pull-messages"


class Hospital:
    """A door, and a site that was admitted behind it."""

    def __init__(self, folder: Path) -> None:
        now = datetime.now(UTC)
        self.home: Home = a_home(folder, now=now)
        self.key = new_key()
        admission = admit(self.home, signing_request(self.key, "st-a"), "st-a", now)
        certificate = x509.load_pem_x509_certificate(admission.certificate.encode())
        der = self.key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        self.peer: Peer | None = Peer(certificate.serial_number, der)
        self.reached: list[str] = []
        self.door = Door(
            self._superlink, Registry(self.home), Desk(self.home.path), Tray(self.home.path)
        )

    async def _superlink(self, scope: Any, receive: Any, send: Any) -> None:
        self.reached.append(scope["path"])
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    def ask(self, path: str = PULL, method: str = "POST", body: bytes = b"", **headers: str) -> int:
        """Send a request; return the status of the answer."""
        key = b64encode(public_key_to_bytes(self.key.public_key())).decode()
        told = {FLEET_HTTP_PUBLIC_KEY_HEADER: key, "content-length": str(len(body)), **headers}
        scope = {
            "type": "http",
            "path": path,
            "method": method,
            "headers": [(n.lower().encode(), v.encode()) for n, v in told.items() if v],
            PEER: self.peer,
        }
        statuses: list[int] = []

        async def receive() -> MutableMapping[str, Any]:
            return {"type": "http.request", "body": body, "more_body": False}

        async def send(event: MutableMapping[str, Any]) -> None:
            if event["type"] == "http.response.start":
                statuses.append(event["status"])

        asyncio.run(self.door(scope, receive, send))
        return statuses[0]


@pytest.fixture
def hospital(tmp_path: Path) -> Hospital:
    return Hospital(tmp_path / "centre")


@pytest.mark.parametrize("path", sorted(FLEET_PATHS))
def test_an_admitted_site_reaches_the_fleet_paths(path: str, hospital: Hospital) -> None:
    assert hospital.ask(path) == 200
    assert hospital.reached == [path]


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/docs",
        "/openapi.json",
        "/v1/control/start-run",
        "/v1/runtime/acquire-task",
        "/v1/fleet/register-node",
        "/v1/fleet/unregister-node",
        "/v1/fleet/",
        "/V1/FLEET/pull-messages",
        "//v1/fleet/pull-messages",
        "/v1/fleet/pull-messages/",
        "/v1/fleet/../control/start-run",
        "/v1/fleet/%70ull-messages",
        WORD_PATH + "/",
    ],
)
def test_no_other_path_leads_anywhere(path: str, hospital: Hospital) -> None:
    assert hospital.ask(path) == 404
    assert hospital.reached == []


def test_without_a_certificate_or_with_another_nothing_is_reached(hospital: Hospital) -> None:
    known = hospital.peer
    assert known is not None
    for peer in (None, Peer(known.serial + 1, known.public_key_der), Peer(known.serial, b"key")):
        hospital.peer = peer
        assert hospital.ask() == hospital.ask(WORD_PATH) == hospital.ask("/docs") == 403
    assert hospital.reached == []


def test_a_revoked_site_is_out_at_its_next_request(hospital: Hospital) -> None:
    assert hospital.ask() == 200
    revoke(hospital.home, "st-a", datetime.now(UTC))
    assert hospital.ask() == hospital.ask(WORD_PATH) == 403


def test_no_site_signs_as_another(hospital: Hospital) -> None:
    other = b64encode(public_key_to_bytes(new_key().public_key())).decode()
    for header in (other, "", "no base64!", b64encode(b"no key").decode()):
        assert hospital.ask(**{FLEET_HTTP_PUBLIC_KEY_HEADER: header}) == 403
    assert hospital.reached == []


@pytest.mark.parametrize("length", ["", "-1", "many", str(2**40)])
def test_a_body_of_unknown_or_great_length_is_refused(length: str, hospital: Hospital) -> None:
    assert hospital.ask(**{"content-length": length}) == 413
    assert hospital.reached == []


def test_a_word_is_kept_under_the_certificates_name(hospital: Hospital) -> None:
    word = json.dumps({"session": "s", "run": "", "round": 0, "beats": 0}).encode()
    assert hospital.ask(WORD_PATH, body=word) == 200
    assert hospital.ask(WORD_PATH, method="GET", body=word) == 404
    assert hospital.ask(WORD_PATH, body=b"x" * 10_000) == 400
    heard = Presence(hospital.home.path).of("st-a")
    assert heard is not None
    assert heard.word.session == "s"
    assert hospital.reached == []
