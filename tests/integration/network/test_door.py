"""What the centre's doors let in, tried from outside on a server that runs."""

import socket
import ssl
from datetime import UTC, datetime
from pathlib import Path

import httpx
import psutil
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from flwr.proto.runtime_pb2 import AcquireTaskRequest
from flwr.supercore.interceptors import RuntimeVersionHttpInterceptor
from flwr.supercore.runtime import RuntimeHttpClient

from client.enrolment import Membership, enroll, join, membership
from client.fleet import ConnectionLostError, connected
from common.certificates import read_private_key
from server.daemon.listener import MOST_OF_A_SITE
from server.federation.enrolment import admit, revoke
from server.federation.home import FederationSettings, make_home
from simulation.chaos.federation import Federation
from simulation.chaos.waiting import until

SECRET_PATHS = (
    "/v1/control/list-runs",
    "/v1/control/start-run",
    "/v1/runtime/acquire-task",
    "/docs",
    "/openapi.json",
    "/",
)
REFUSED = (httpx.TransportError, ssl.SSLError)


@pytest.fixture(scope="module")
def centre(federation: Federation) -> Federation:
    federation.start_server()
    return federation


def _trusting(centre: Federation) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cafile=centre.home.ca_certificate)
    return context


def _as(member: Membership, centre: Federation) -> ssl.SSLContext:
    context = _trusting(centre)
    member.credentials.load_into(context)
    return context


def _member(centre: Federation, name: str) -> Membership:
    return membership(centre.sites[name].state)


def _door(centre: Federation, tls: ssl.SSLContext) -> httpx.Client:
    return httpx.Client(base_url=f"https://127.0.0.1:{centre.port}", verify=tls, timeout=10.0)


def _key(member: Membership) -> ec.EllipticCurvePrivateKey:
    return read_private_key(member.credentials.key_of(member.certificate))


def _inner_port(centre: Federation) -> int:
    pid = centre.processes.find("link")
    return int(psutil.Process(pid).cmdline()[-1])


@pytest.fixture
def newcomer(centre: Federation, tmp_path: Path) -> Membership:
    """A third site, admitted while the centre runs."""
    now = datetime.now(UTC)
    admission = admit(centre.home, enroll(tmp_path, "west"), "west", now)
    return join(tmp_path, admission.to_bytes(), now)


def test_with_the_authority_alone_nothing_is_reached(centre: Federation) -> None:
    with _door(centre, _trusting(centre)) as door, pytest.raises(REFUSED):
        door.post("/v1/fleet/activate-node")


def test_with_a_certificate_of_another_federation_nothing_is_reached(
    centre: Federation, tmp_path: Path
) -> None:
    now = datetime.now(UTC)
    other = make_home(tmp_path / "other", FederationSettings(name="Other", hosts=["h"]), now)
    admission = admit(other, enroll(tmp_path, "north"), "north", now)
    stranger = join(tmp_path, admission.to_bytes(), now)
    with _door(centre, _as(stranger, centre)) as door, pytest.raises(REFUSED):
        door.post("/v1/fleet/activate-node")


def test_tls_1_2_is_refused(centre: Federation) -> None:
    tls = _as(_member(centre, "north"), centre)
    tls.maximum_version = ssl.TLSVersion.TLSv1_2
    with _door(centre, tls) as door, pytest.raises(REFUSED, match=r"(?i)version|alert|eof|reset"):
        door.post("/v1/fleet/activate-node")


@pytest.mark.parametrize("path", SECRET_PATHS)
def test_what_is_not_the_fleets_is_not_there(centre: Federation, path: str) -> None:
    with _door(centre, _as(_member(centre, "north"), centre)) as door:
        assert door.post(path).status_code == 404
        assert door.get(path).status_code == 404


@pytest.mark.parametrize("path", ["/v1/control/list-runs", "/v1/fleet/activate-node", "/docs"])
def test_the_inner_door_has_no_orders_and_no_fleet(centre: Federation, path: str) -> None:
    address = f"http://127.0.0.1:{_inner_port(centre)}"
    assert httpx.post(address + path, timeout=10.0).status_code == 404


def test_a_task_is_not_given_to_one_who_shows_no_secret(centre: Federation) -> None:
    thief = RuntimeHttpClient.from_server_address(
        f"127.0.0.1:{_inner_port(centre)}",
        True,
        None,
        interceptors=[RuntimeVersionHttpInterceptor(component_name="x")],
    )
    with pytest.raises(httpx.HTTPStatusError) as refused:
        thief.AcquireTask(AcquireTaskRequest(supported_task_types=["flwr-serverapp"]))
    assert refused.value.response.status_code == 401


def test_a_site_cannot_sign_as_another(centre: Federation) -> None:
    north, south = _member(centre, "north"), _member(centre, "south")
    with (
        _door(centre, _as(north, centre)) as door,
        pytest.raises(ConnectionLostError, match="does not admit"),
        connected(door, _key(south)),
    ):
        pytest.fail("the centre took another site's key")


def test_a_site_holds_so_many_connections_at_most(centre: Federation) -> None:
    tls = _as(_member(centre, "north"), centre)
    held: list[ssl.SSLSocket] = []
    try:
        for _ in range(MOST_OF_A_SITE + 4):
            plain = socket.create_connection(("127.0.0.1", centre.port), 10.0)
            held.append(tls.wrap_socket(plain, server_hostname="127.0.0.1"))
        last = held[-1]
        last.settimeout(5.0)
        # Closed without a word, where one that is let in would wait for its request.
        assert last.recv(1) == b""
    finally:
        for connection in held:
            connection.close()

    def let_in() -> bool:
        with _door(centre, tls) as door:
            try:
                return door.post("/v1/wardround/word", json={"session": "s"}).status_code == 200
            except REFUSED:
                return False

    until("closed connections count no more", let_in, 30.0)


def test_a_revoked_site_is_refused_at_once_on_an_open_connection(
    centre: Federation, newcomer: Membership
) -> None:
    tls = _as(newcomer, centre)

    def known() -> bool:
        try:
            with _door(centre, tls) as door, connected(door, _key(newcomer)):
                return True
        except ConnectionLostError:
            return False

    # The steward needs a moment to register a new site's key.
    until("west may connect", known, 30.0)
    word = {"session": "s"}
    with (
        _door(centre, tls) as door,
        _door(centre, tls) as nodes,
        connected(nodes, _key(newcomer)) as node,
    ):
        assert door.post("/v1/wardround/word", json=word).status_code == 200
        assert node.receive() is None
        revoke(centre.home, "west", datetime.now(UTC), "test")
        assert door.post("/v1/wardround/word", json=word).status_code == 403
        with pytest.raises(httpx.HTTPStatusError, match="403"):
            node.receive()
