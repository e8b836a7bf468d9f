import base64
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from common.certificates import (
    CertificateError,
    certificate_of,
    certificate_pem,
    check_client,
    check_fingerprint,
    check_host,
    check_site_name,
    checked_request,
    days_left,
    days_until,
    fingerprint,
    key_fingerprint,
    key_of_openssh,
    new_key,
    openssh_private,
    openssh_public,
    private_pem,
    public_der,
    read_private_key,
    read_small,
    signing_request,
)
from common.secret_files import replace_file
from server.federation.authority import Authority, new_authority

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


def _authority() -> Authority:
    key = new_key()
    return Authority(key=key, certificate=new_authority("f", key, NOW), federation="f")


def _request(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey, *names: str) -> bytes:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name) for name in names])
    builder = x509.CertificateSigningRequestBuilder().subject_name(subject)
    return builder.sign(key, hashes.SHA384()).public_bytes(serialization.Encoding.PEM)


def test_a_request_proves_its_key_and_holds_no_secret() -> None:
    key = new_key()
    pem = signing_request(key, "st-marys")
    assert public_der(checked_request(pem, "st-marys")) == public_der(key.public_key())
    number = key.private_numbers().private_value.to_bytes(48, "big")
    assert number not in x509.load_pem_x509_csr(pem).public_bytes(serialization.Encoding.DER)


@pytest.mark.parametrize(
    ("key", "told"),
    [
        (ec.generate_private_key(ec.SECP256R1()), "secp256r1"),
        (rsa.generate_private_key(65537, 2048), "RSA"),
    ],
)
def test_a_request_of_another_kind_of_key_is_refused(
    key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey, told: str
) -> None:
    with pytest.raises(CertificateError, match=f"{told}.*only P-384"):
        checked_request(_request(key, "st-marys"), "st-marys")


def test_a_request_with_a_broken_signature_is_refused() -> None:
    request = x509.load_pem_x509_csr(signing_request(new_key(), "st-marys"))
    der = bytearray(request.public_bytes(serialization.Encoding.DER))
    der[-1] ^= 1
    pem = x509.load_der_x509_csr(bytes(der)).public_bytes(serialization.Encoding.PEM)
    with pytest.raises(CertificateError, match="signature does not fit"):
        checked_request(pem, "st-marys")


def test_a_request_with_another_key_put_in_is_refused() -> None:
    mine, theirs = new_key(), new_key()
    request = x509.load_pem_x509_csr(signing_request(mine, "st-marys"))
    der = request.public_bytes(serialization.Encoding.DER)
    swapped = der.replace(public_der(mine.public_key()), public_der(theirs.public_key()))
    pem = x509.load_der_x509_csr(swapped).public_bytes(serialization.Encoding.PEM)
    with pytest.raises(CertificateError, match="signature does not fit"):
        checked_request(pem, "st-marys")


def test_a_request_of_another_name_names_both() -> None:
    with pytest.raises(CertificateError, match=r"'st-marys'.*'st-johns'"):
        checked_request(signing_request(new_key(), "st-marys"), "st-johns")


@pytest.mark.parametrize("names", [(), ("a-a", "b-b")])
def test_a_request_has_one_name(names: tuple[str, ...]) -> None:
    with pytest.raises(CertificateError, match=f"{len(names)} common names"):
        checked_request(_request(new_key(), *names), "a-a")


@pytest.mark.parametrize(
    "content", [b"", b"hello", b"-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n", b"\xff" * 9]
)
def test_what_is_no_request_is_told_in_one_line(content: bytes) -> None:
    with pytest.raises(CertificateError, match=r"no signing request.*enroll again") as error:
        checked_request(content, "st-marys")
    assert "\n" not in str(error.value)


def test_a_private_key_sent_by_mistake_is_named_as_one() -> None:
    with pytest.raises(CertificateError, match=r"must never leave its site.*--new-key"):
        checked_request(private_pem(new_key()), "st-marys")


@pytest.mark.parametrize(
    "name", ["", "a", "-a", "St-Marys", "st/marys", "../x", "a" * 64, "a.b", "a\n", "ä-b", "a b"]
)
def test_a_name_that_could_leave_its_folder_is_refused(name: str) -> None:
    with pytest.raises(CertificateError, match="is not allowed"):
        check_site_name(name)


@given(st.from_regex(r"[a-z0-9][a-z0-9-]{1,62}", fullmatch=True))
def test_a_name_of_letters_digits_and_dashes_is_allowed(name: str) -> None:
    check_site_name(name)


@pytest.mark.parametrize("host", ["localhost", "a.example.org", "127.0.0.1", "::1", "xn--bcher"])
def test_a_host_is_a_name_or_an_address(host: str) -> None:
    check_host(host)


@pytest.mark.parametrize(
    "host",
    ["", "https://a.b", "a.b:8443", "1.2.3", "300.1.1.1", "-a", "a..b", "bücher", "a\nb"],
)
def test_what_is_no_host_is_refused(host: str) -> None:
    with pytest.raises(CertificateError, match="no host name"):
        check_host(host)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660])
def test_a_key_that_others_may_read_is_refused(tmp_path: Path, mode: int) -> None:
    replace_file(tmp_path / "key", private_pem(new_key()))
    read_private_key(tmp_path / "key")
    (tmp_path / "key").chmod(mode)
    with pytest.raises(CertificateError, match="chmod 600"):
        read_private_key(tmp_path / "key")


def test_a_key_file_without_a_key_of_ours_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "key"
    with pytest.raises(CertificateError, match="cannot be read"):
        read_private_key(path)
    replace_file(path, b"hello")
    with pytest.raises(CertificateError, match="no private key"):
        read_private_key(path)
    form = (
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    replace_file(path, ed25519.Ed25519PrivateKey.generate().private_bytes(*form))
    with pytest.raises(CertificateError, match=r"Ed25519.*only P-384"):
        read_private_key(path)
    replace_file(path, ec.generate_private_key(ec.SECP521R1()).private_bytes(*form))
    with pytest.raises(CertificateError, match="secp521r1"):
        read_private_key(path)


def test_a_file_larger_than_any_of_ours_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "big").write_bytes(b"0" * 65_537)
    with pytest.raises(CertificateError, match="larger than"):
        read_small(tmp_path / "big")
    with pytest.raises(CertificateError, match="correct the path"):
        read_small(tmp_path / "absent")


def test_a_certificate_text_has_exactly_one_certificate() -> None:
    pem = certificate_pem(_authority().certificate)
    assert certificate_pem(certificate_of(pem, "it")) == pem
    for wrong in (pem * 2, b"", b"hello", pem[:100]):
        with pytest.raises(CertificateError, match="it holds not exactly one"):
            certificate_of(wrong, "it")


def test_openssh_forms_are_of_the_same_key() -> None:
    key = new_key()
    line = openssh_public(key.public_key())
    assert public_der(key_of_openssh(line)) == public_der(key.public_key())
    read = serialization.load_ssh_private_key(openssh_private(key), None)
    assert openssh_public(read.public_key()) == line
    for wrong in ("", "ssh-rsa AAAA", "hello"):
        with pytest.raises(CertificateError):
            key_of_openssh(wrong)


def test_a_keys_fingerprint_is_that_of_cryptography() -> None:
    key = new_key().public_key()
    digest = serialization.ssh_key_fingerprint(key, hashes.SHA256())
    told = "SHA256:" + base64.b64encode(digest).decode().rstrip("=")
    assert key_fingerprint(openssh_public(key)) == told


def test_a_fingerprint_is_compared_whole() -> None:
    ca = _authority().certificate
    told = fingerprint(ca)
    for same in (told, told.lower(), told.replace(":", ""), told.replace(":", " ")):
        check_fingerprint(ca, same)
    for short in (told[:-3], "", "AB:CD", told + ":00", "z" * 64):
        with pytest.raises(CertificateError, match="all 64 digits"):
            check_fingerprint(ca, short)
    with pytest.raises(CertificateError, match="do not join"):
        check_fingerprint(ca, fingerprint(_authority().certificate))


@given(st.integers(-400, 400), st.integers(0, 86_399))
def test_days_left_are_whole_days_rounded_down(days: int, seconds: int) -> None:
    assert days_until(NOW + timedelta(days=days, seconds=seconds), NOW) == days


def test_a_sites_certificate_is_accepted_while_it_is_valid_and_by_its_authority() -> None:
    authority = _authority()
    key = new_key().public_key()
    certificate = authority.site_certificate("st-marys", key, NOW, 180)
    assert days_left(certificate, NOW) == 180
    check_client(certificate, authority.certificate, NOW)
    # A site's clock may lag.
    check_client(certificate, authority.certificate, NOW - timedelta(hours=1))
    with pytest.raises(CertificateError, match="set the clock"):
        check_client(certificate, authority.certificate, NOW - timedelta(days=2))
    with pytest.raises(CertificateError, match="ended on 2026-08-28"):
        check_client(certificate, authority.certificate, NOW + timedelta(days=181))
    with pytest.raises(CertificateError, match="not signed by"):
        check_client(certificate, _authority().certificate, NOW)


def test_a_servers_certificate_is_none_for_a_site() -> None:
    authority = _authority()
    certificate = authority.server_certificate(["localhost"], new_key().public_key(), NOW)
    with pytest.raises(CertificateError, match="not fit for TLS"):
        check_client(certificate, authority.certificate, NOW)


def test_a_site_cannot_sign_another_site() -> None:
    authority, site_key = _authority(), new_key()
    site = authority.site_certificate("st-marys", site_key.public_key(), NOW)
    forger = Authority(key=site_key, certificate=site, federation="f")
    forged = forger.site_certificate("st-johns", new_key().public_key(), NOW)
    with pytest.raises(CertificateError):
        check_client(forged, authority.certificate, NOW)
    with pytest.raises(CertificateError, match="not fit for TLS"):
        check_client(forged, site, NOW)


def test_keys_need_no_torch() -> None:
    code = "import sys, client.cli_enrolment, server.cli; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
