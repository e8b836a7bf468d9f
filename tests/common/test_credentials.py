import ssl
import threading
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography import x509

from common.certificates import CertificateError, certificate_pem, new_key
from common.credentials import Credentials
from common.secret_files import replace_file
from server.federation.authority import Authority, new_authority

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
_KEY = new_key()
AUTHORITY = Authority(key=_KEY, certificate=new_authority("f", _KEY, NOW), federation="f")


@pytest.fixture
def pair(tmp_path: Path) -> Credentials:
    """Credentials without a key."""
    return Credentials(key=tmp_path / "site.key", certificate=tmp_path / "site.pem")


def _certificate(pair: Credentials, *, new: bool = False) -> x509.Certificate:
    key = pair.make_key(new=new).public_key()
    return AUTHORITY.site_certificate("st-marys", key, NOW)


def test_a_key_is_never_written_over(pair: Credentials) -> None:
    first = pair.make_key().private_numbers()
    assert pair.make_key().private_numbers() == first
    waiting = pair.make_key(new=True).private_numbers()
    assert waiting != first
    assert pair.make_key(new=True).private_numbers() == waiting
    assert pair.make_key().private_numbers() == first
    assert {path.stat().st_mode & 0o777 for path in (pair.key, pair.next_key)} == {0o600}


def test_the_first_key_is_the_one_in_use_also_when_a_new_one_is_asked_for(
    pair: Credentials,
) -> None:
    pair.make_key(new=True)
    assert pair.key.exists()
    assert not pair.next_key.exists()


def test_a_certificate_brings_its_key_into_use(pair: Credentials) -> None:
    pair.install(_certificate(pair))
    new = _certificate(pair, new=True)
    waiting = pair.next_key.read_bytes()
    assert pair.load_into(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)) != new
    pair.install(new)
    assert pair.load_into(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)) == new
    assert pair.key.read_bytes() == waiting
    assert not pair.next_key.exists()


def test_a_kill_between_certificate_and_key_is_mended_and_read_right(pair: Credentials) -> None:
    pair.install(_certificate(pair))
    new = _certificate(pair, new=True)
    replace_file(pair.certificate, certificate_pem(new))  # and the process is killed here
    assert pair.load_into(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)) == new
    assert pair.next_key.exists()
    waiting = pair.next_key.read_bytes()
    again = pair.make_key()
    assert (pair.key.read_bytes(), pair.next_key.exists()) == (waiting, False)
    assert pair.key_of(AUTHORITY.site_certificate("x1", again.public_key(), NOW)) == pair.key


def test_a_certificate_of_another_key_changes_nothing(pair: Credentials) -> None:
    pair.install(_certificate(pair))
    before = pair.certificate.read_bytes()
    other = AUTHORITY.site_certificate("st-marys", new_key().public_key(), NOW)
    with pytest.raises(CertificateError, match="not the certificate's"):
        pair.install(other)
    assert pair.certificate.read_bytes() == before


def test_a_listener_finds_a_pair_that_fits_whenever_it_reads(pair: Credentials) -> None:
    pair.install(_certificate(pair))
    done = threading.Event()
    seen: set[int] = set()
    failures: list[Exception] = []

    def listen() -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        try:
            while not done.is_set():
                seen.add(pair.load_into(context).serial_number)
        except CertificateError as error:
            failures.append(error)

    readers = [threading.Thread(target=listen) for _ in range(4)]
    for reader in readers:
        reader.start()
    for _ in range(150):
        pair.install(_certificate(pair, new=True))
    done.set()
    for reader in readers:
        reader.join()
    assert (failures, bool(seen)) == ([], True)


def test_without_files_the_error_says_which(pair: Credentials) -> None:
    with pytest.raises(CertificateError, match=r"site.pem"):
        pair.load_into(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))
