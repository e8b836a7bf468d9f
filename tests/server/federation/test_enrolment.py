import socket
import ssl
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509

from client.enrolment import Membership, enroll, join
from common.certificates import (
    CertificateError,
    certificate_of,
    common_name,
    key_of_openssh,
    new_key,
    openssh_public,
    public_der,
    signing_request,
)
from server.federation.enrolment import admit, renew, renew_server, revoke
from server.federation.home import Home
from server.federation.registry import Registry, RegistryError
from tests.server.federation.homes import NOW, a_home, a_request

TIMEOUT_S = 10


@dataclass
class Shown:
    """What a server saw of a client, and the TLS version."""

    certificate: x509.Certificate
    version: str | None


def _serial(pem: str) -> int:
    return certificate_of(pem.encode(), "it").serial_number


def _server_context(home: Home) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.verify_mode = ssl.CERT_REQUIRED
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    context.load_verify_locations(home.ca_certificate)
    home.server.load_into(context)
    return context


def _site_context(site: Membership | None, ca: Path) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=ca)
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    if site is not None:
        site.credentials.load_into(context)
    return context


def _handshake(server: ssl.SSLContext, client: ssl.SSLContext) -> Shown:
    """Connect over loopback; raises what the server met."""
    with socket.create_server(("127.0.0.1", 0)) as listener, ThreadPoolExecutor(1) as pool:
        listener.settimeout(TIMEOUT_S)

        def accept() -> Shown:
            connection, _ = listener.accept()
            connection.settimeout(TIMEOUT_S)
            with server.wrap_socket(connection, server_side=True) as secured:
                secured.sendall(b"x")
                der = secured.getpeercert(binary_form=True)
                assert der is not None
                return Shown(x509.load_der_x509_certificate(der), secured.version())

        seen = pool.submit(accept)
        try:
            with (
                socket.create_connection(listener.getsockname(), TIMEOUT_S) as plain,
                client.wrap_socket(plain, server_hostname="localhost") as secured,
            ):
                secured.recv(1)
        except ssl.SSLError:
            # In TLS 1.3 the client hears of a refusal late; the server's word is the one asked for.
            if seen.exception() is None:
                raise
        return seen.result()


@pytest.fixture
def today() -> datetime:
    """TLS looks at the machine's own clock."""
    return datetime.now(UTC)


def _joined(home: Home, state: Path, name: str, now: datetime) -> Membership:
    made = admit(home, enroll(state, name), name, now)
    return join(state, made.to_bytes(), now)


def test_an_admitted_site_comes_in_over_tls_1_3_and_is_known(
    tmp_path: Path, today: datetime
) -> None:
    home = a_home(tmp_path / "home", now=today)
    site = _joined(home, tmp_path / "state", "st-marys", today)
    shown = _handshake(_server_context(home), _site_context(site, site.ca_certificate))
    assert shown.version == "TLSv1.3"
    assert common_name(shown.certificate) == "st-marys"
    key = public_der(shown.certificate.public_key())
    registry = Registry(home)
    assert registry.site_of(shown.certificate.serial_number, key) == "st-marys"
    # The same key is the one that Flower will know the site by.
    assert public_der(key_of_openssh(registry.sites()[0].public_key)) == key


def test_neither_another_federation_nor_no_certificate_comes_in(
    tmp_path: Path, today: datetime
) -> None:
    home = a_home(tmp_path / "home", now=today)
    other = a_home(tmp_path / "other", now=today)
    stranger = _joined(other, tmp_path / "state", "st-marys", today)
    for client in (
        _site_context(stranger, home.ca_certificate),
        _site_context(None, home.ca_certificate),
    ):
        with pytest.raises(ssl.SSLError):
            _handshake(_server_context(home), client)
    # And a site does not connect to a centre that is not its own.
    with pytest.raises(ssl.SSLError):
        _handshake(_server_context(other), _site_context(stranger, home.ca_certificate))


def test_a_certificate_that_has_ended_does_not_come_in(tmp_path: Path, today: datetime) -> None:
    home = a_home(tmp_path / "home", now=today - timedelta(days=10))
    then = today - timedelta(days=5)
    made = admit(home, enroll(tmp_path / "s", "st-marys"), "st-marys", then, days=1)
    site = join(tmp_path / "s", made.to_bytes(), then)
    with pytest.raises(ssl.SSLError, match="expired"):
        _handshake(_server_context(home), _site_context(site, site.ca_certificate))


def test_certificates_are_renewed_under_a_listener_that_runs(
    tmp_path: Path, today: datetime
) -> None:
    home = a_home(tmp_path / "home", now=today)
    state = tmp_path / "state"
    site = _joined(home, state, "st-marys", today)
    server, client = _server_context(home), _site_context(site, site.ca_certificate)
    first = _handshake(server, client).certificate.serial_number
    for new_server_key in (False, True):
        renew_server(home, today, new_key=new_server_key)
        home.server.load_into(server)
        again = join(state, renew(home, "st-marys", today).to_bytes(), today)
        again.credentials.load_into(client)
        assert _handshake(server, client).certificate.serial_number != first
    made = renew(home, "st-marys", today, request=enroll(state, "st-marys", new_key=True))
    join(state, made.to_bytes(), today).credentials.load_into(client)
    shown = _handshake(server, client).certificate
    key = public_der(shown.public_key())
    assert Registry(home).site_of(shown.serial_number, key) == "st-marys"


def test_the_same_request_again_is_a_renewal(tmp_path: Path) -> None:
    home, request = a_home(tmp_path), a_request("st-marys")
    serials = {_serial(admit(home, request, "st-marys", NOW).certificate) for _ in range(3)}
    (entry,) = Registry(home).sites()
    assert set(entry.serials) == serials
    assert len(serials) == 3


def test_a_name_that_is_taken_is_refused_with_the_ways_out(tmp_path: Path) -> None:
    home = a_home(tmp_path)
    admit(home, a_request("st-marys"), "st-marys", NOW)
    before = (home.sites / "st-marys.json").read_bytes()
    with pytest.raises(RegistryError, match=r"taken.*rotate st-marys --csr.*revoke st-marys"):
        admit(home, a_request("st-marys"), "st-marys", NOW)
    assert (home.sites / "st-marys.json").read_bytes() == before


def test_one_key_is_one_site(tmp_path: Path) -> None:
    home, key = a_home(tmp_path), new_key()
    admit(home, signing_request(key, "st-marys"), "st-marys", NOW)
    with pytest.raises(RegistryError, match="that of the site 'st-marys'"):
        admit(home, signing_request(key, "st-johns"), "st-johns", NOW)
    assert [entry.name for entry in Registry(home).sites()] == ["st-marys"]


def test_a_revoked_key_never_comes_back_under_any_name(tmp_path: Path) -> None:
    home, key = a_home(tmp_path), new_key()
    admit(home, signing_request(key, "st-marys"), "st-marys", NOW)
    revoke(home, "st-marys", NOW, "stolen")
    ways: list[Callable[[], object]] = [
        lambda: admit(home, signing_request(key, "st-marys"), "st-marys", NOW),
        lambda: admit(home, signing_request(key, "st-johns"), "st-johns", NOW),
    ]
    for way in ways:
        with pytest.raises(RegistryError, match=r"revoked at 'st-marys'.*--new-key"):
            way()
    with pytest.raises(RegistryError, match=r"revoked on 2026-03-01.*admit FILE"):
        renew(home, "st-marys", NOW)
    # With a new key the site is back, and the old key is out still.
    admit(home, a_request("st-marys"), "st-marys", NOW)
    (entry,) = Registry(home).sites()
    assert (entry.revoked, entry.reason, len(entry.serials)) == (None, "", 1)
    assert openssh_public(key.public_key()) in entry.former_keys
    for way in ways:
        with pytest.raises(RegistryError, match="revoked"):
            way()


def test_revoking_ends_every_certificate_at_once_and_twice_is_once(tmp_path: Path) -> None:
    home, key = a_home(tmp_path), new_key()
    request = signing_request(key, "st-marys")
    serials = [_serial(admit(home, request, "st-marys", NOW).certificate) for _ in range(2)]
    registry, der = Registry(home), public_der(key.public_key())
    assert [registry.site_of(serial, der) for serial in serials] == ["st-marys"] * 2
    first = revoke(home, "st-marys", NOW, "left")
    assert [registry.site_of(serial, der) for serial in serials] == [None] * 2
    assert revoke(home, "st-marys", NOW + timedelta(days=1), "again") == first
    with pytest.raises(RegistryError, match="no site 'st-johns'"):
        revoke(home, "st-johns", NOW)


def test_a_renewal_leaves_the_old_certificate_to_its_end(tmp_path: Path) -> None:
    home, key = a_home(tmp_path), new_key()
    old = _serial(admit(home, signing_request(key, "st-marys"), "st-marys", NOW).certificate)
    new = _serial(renew(home, "st-marys", NOW + timedelta(days=150)).certificate)
    registry, der = Registry(home), public_der(key.public_key())
    assert registry.site_of(old, der) == registry.site_of(new, der) == "st-marys"
    (entry,) = registry.sites()
    assert entry.days_left(NOW) == 330


def test_a_new_key_replaces_the_old_whose_certificates_end(tmp_path: Path) -> None:
    home, key, other = a_home(tmp_path), new_key(), new_key()
    old = _serial(admit(home, signing_request(key, "st-marys"), "st-marys", NOW).certificate)
    made = renew(home, "st-marys", NOW, request=signing_request(other, "st-marys"))
    registry = Registry(home)
    assert registry.site_of(old, public_der(key.public_key())) is None
    assert registry.site_of(_serial(made.certificate), public_der(other.public_key()))
    assert registry.sites()[0].public_key == openssh_public(other.public_key())
    with pytest.raises(RegistryError, match="revoked"):
        renew(home, "st-marys", NOW, request=signing_request(key, "st-marys"))


def test_what_is_refused_changes_nothing(tmp_path: Path) -> None:
    home = a_home(tmp_path)
    admit(home, a_request("st-marys"), "st-marys", NOW)
    before = (home.sites / "st-marys.json").read_bytes()
    for wrong in (b"hello", a_request("st-johns")):
        with pytest.raises(CertificateError):
            renew(home, "st-marys", NOW, request=wrong)
    with pytest.raises(CertificateError, match="days=0"):
        renew(home, "st-marys", NOW, days=0)
    with pytest.raises(CertificateError, match="not allowed"):
        admit(home, a_request("st-marys"), "../st-marys", NOW)
    with pytest.raises(CertificateError, match="days=9999"):
        renew(home, "st-marys", NOW, days=9999, request=a_request("st-marys"))
    assert (home.sites / "st-marys.json").read_bytes() == before
    assert sorted(path.name for path in home.sites.iterdir()) == ["st-marys.json"]


def test_no_file_that_leaves_holds_a_private_key(tmp_path: Path) -> None:
    home = a_home(tmp_path / "home")
    request = enroll(tmp_path / "state", "st-marys")
    leaving = request + admit(home, request, "st-marys", NOW).to_bytes()
    keys = [*tmp_path.rglob("*.key")]
    assert len(keys) == 3
    for path in keys:
        body = b"".join(path.read_bytes().splitlines()[1:-1])
        assert body[:40] not in leaving.replace(b"\n", b"")
    assert b"PRIVATE" not in leaving
