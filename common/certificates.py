"""Keys, signing requests and certificates of a federation (X.509, RFC 5280), with `cryptography`.

Every key is on P-384. A site has one: the certificate of its TLS connection holds it, and Flower
knows the site by it. What makes certificates is at the centre, server/federation/authority.py.
"""

import base64
import hashlib
import hmac
import ipaddress
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes
from cryptography.x509.oid import NameOID
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError

from common.system_errors import reason_of

WARN_DAYS = 30
"""Days before its end at which a certificate is warned of."""
MAX_BYTES = 65_536
"""Of a request, a certificate or an admission; ours have under 8 kB."""

SERVER_NAME = "wardround server"
"""The common name of a federation's server; no site may have it."""

_SITE_NAME = re.compile(r"[a-z0-9][a-z0-9-]{1,62}")
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_HOST_NAME = re.compile(rf"(?=.{{1,253}}$){_LABEL}(?:\.{_LABEL})*")
_HEX_DIGITS = 64


class CertificateError(ValueError):
    """A key, a request or a certificate that cannot be used; the text says why and what helps."""


def check_site_name(name: str) -> None:
    """Raise CertificateError unless a site may have this name: it is a file name and a CN."""
    if not _SITE_NAME.fullmatch(name):
        raise CertificateError(
            f"the site name {name!r} is not allowed; give 2 to 63 of a-z, 0-9 and -, the first "
            "not a -, such as st-marys"
        )


def check_host(host: str) -> None:
    """Raise CertificateError unless this is a host name in ASCII or an IP address."""
    try:
        ipaddress.ip_address(host)
    except ValueError as error:
        # All digits and dots is an address that was mistyped, never a name.
        if not _HOST_NAME.fullmatch(host) or re.fullmatch(r"[0-9.]+", host):
            raise CertificateError(
                f"the host {host!r} is no host name and no IP address; give it without https:// "
                "and without a port, such as federation.example.org"
            ) from error


def new_key() -> ec.EllipticCurvePrivateKey:
    """Return a new private key on P-384."""
    return ec.generate_private_key(ec.SECP384R1())


def private_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    """Return a private key as PEM (PKCS 8), which TLS libraries read."""
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def openssh_private(key: ec.EllipticCurvePrivateKey) -> bytes:
    """Return a private key in OpenSSH's form, which Flower's SuperNode reads."""
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.OpenSSH,
        serialization.NoEncryption(),
    )


def read_private_key(path: Path) -> ec.EllipticCurvePrivateKey:
    """Return the private key in a file.

    Raises:
        CertificateError: it is absent, other users may read it, or it is no P-384 key.
    """
    content = private_bytes(path)
    try:
        key = serialization.load_pem_private_key(content, None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise CertificateError(
            f"{path}: is no private key that can be read; restore it from a backup, or make a new "
            "one"
        ) from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise CertificateError(f"{path}: {_not_ours(key.public_key())}")
    _p384(key.public_key(), str(path))
    return key


def private_bytes(path: Path) -> bytes:
    """Return the content of a file with a private key of any kind.

    Raises:
        CertificateError: it is absent, or other users may read it.
    """
    try:
        mode, content = path.stat().st_mode, path.read_bytes()
    except OSError as error:
        raise CertificateError(
            f"{path}: the private key cannot be read ({reason_of(error)})"
        ) from error
    if mode & 0o077:
        raise CertificateError(
            f"{path}: other users may read this private key, so it may be known already; make "
            f"it yours alone with: chmod 600 {path}, and if others use this machine, a new key"
        )
    return content


def certificate_of(pem: bytes, what: str) -> x509.Certificate:
    """Return the one certificate in a PEM text; `what` names it in an error."""
    try:
        if len(pem) > MAX_BYTES:
            raise ValueError(f"{len(pem)} bytes are too many")
        (certificate,) = x509.load_pem_x509_certificates(pem)
        certificate.public_key()
    except (ValueError, UnsupportedAlgorithm) as error:
        raise CertificateError(
            f"{what} holds not exactly one certificate that can be read ({error}); ask for it again"
        ) from error
    return certificate


def read_certificate(path: Path) -> x509.Certificate:
    """Return the certificate in a file.

    Raises:
        CertificateError: it is absent or no certificate.
    """
    return certificate_of(read_small(path), str(path))


def read_small(path: Path) -> bytes:
    """Return the bytes of a file that somebody sent.

    Raises:
        CertificateError: it cannot be read, or is larger than any that this program writes.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise CertificateError(
            f"{path}: cannot be read ({reason_of(error)}); correct the path"
        ) from error
    if len(content) > MAX_BYTES:
        raise CertificateError(
            f"{path}: is larger than {MAX_BYTES} bytes, so it is none of ours; choose another file"
        )
    return content


def certificate_pem(certificate: x509.Certificate) -> bytes:
    """Return a certificate as PEM."""
    return certificate.public_bytes(serialization.Encoding.PEM)


def signing_request(key: ec.EllipticCurvePrivateKey, name: str) -> bytes:
    """Return a PEM request (PKCS 10) for a site's certificate; its signature proves the key."""
    check_site_name(name)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    request = x509.CertificateSigningRequestBuilder().subject_name(subject)
    return request.sign(key, hashes.SHA384()).public_bytes(serialization.Encoding.PEM)


def checked_request(pem: bytes, name: str) -> ec.EllipticCurvePublicKey:
    """Return the public key of a site's request; nothing else of it is taken over.

    Raises:
        CertificateError: it is no request, of another key type or name, or its signature is wrong.
    """
    if b"PRIVATE KEY" in pem:
        raise CertificateError(
            "this is a private key, which must never leave its site; tell the site to make a new "
            "one (wardround-site enroll --new-key), delete this file, and ask for the .csr file"
        )
    again = "ask the site to run wardround-site enroll again and to send the .csr file"
    try:
        request = x509.load_pem_x509_csr(pem)
        key, told, signed = request.public_key(), common_name(request), request.is_signature_valid
    except (ValueError, UnsupportedAlgorithm) as error:
        raise CertificateError(f"this is no signing request in PEM ({error}); {again}") from error
    checked = _p384(key, "the request")
    if not signed:
        raise CertificateError(f"the request's signature does not fit its key; {again}")
    if told != name:
        raise CertificateError(
            f"the request is of {told!r}, and you named {name!r}; give the name that the site "
            "chose, or ask the site for a request with yours"
        )
    return checked


def common_name(of: x509.Certificate | x509.CertificateSigningRequest) -> str:
    """Return the one common name of a subject.

    Raises:
        CertificateError: there is none, or more than one.
    """
    names = of.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    if len(names) != 1:
        raise CertificateError(f"a subject has {len(names)} common names; one is needed")
    return str(names[0].value)


def fingerprint(certificate: x509.Certificate) -> str:
    """Return the SHA-256 of a certificate as AB:CD:..., to be compared by telephone."""
    return certificate.fingerprint(hashes.SHA256()).hex(":").upper()


def check_fingerprint(certificate: x509.Certificate, told: str) -> None:
    """Raise CertificateError unless this is the certificate's SHA-256; case and : do not matter."""
    digits = re.sub(r"[:\s]", "", told).upper()
    if not re.fullmatch(f"[0-9A-F]{{{_HEX_DIGITS}}}", digits):
        raise CertificateError(
            f"the fingerprint {told!r} is not one: give all {_HEX_DIGITS} digits of SHA-256"
        )
    if not hmac.compare_digest(digits, fingerprint(certificate).replace(":", "")):
        raise CertificateError(
            f"the authority's fingerprint is {fingerprint(certificate)}, not the one that you were "
            "told; do not join: ask the centre by telephone, this file may be a forgery"
        )


def public_der(key: PublicKeyTypes) -> bytes:
    """Return a public key as DER (SubjectPublicKeyInfo): equal bytes, equal keys."""
    return key.public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def openssh_public(key: PublicKeyTypes) -> str:
    """Return a public key as one OpenSSH line without a comment; Flower registers this."""
    return key.public_bytes(
        serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH
    ).decode()


def key_of_openssh(line: str) -> ec.EllipticCurvePublicKey:
    """Return the P-384 public key in an OpenSSH line.

    Raises:
        CertificateError: it is none.
    """
    try:
        key = serialization.load_ssh_public_key(line.encode())
    except (ValueError, UnsupportedAlgorithm) as error:
        raise CertificateError(f"{line[:40]!r} is no public key ({error})") from error
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise CertificateError(f"{line[:40]!r} is no public key of an elliptic curve")
    return _p384(key, "a public key")


def key_fingerprint(line: str) -> str:
    """Return the SHA-256 of an OpenSSH public key, as `ssh-keygen -lf` shows it."""
    digest = hashlib.sha256(base64.b64decode(line.split()[1])).digest()
    return "SHA256:" + base64.b64encode(digest).decode().rstrip("=")


def days_left(certificate: x509.Certificate, now: datetime) -> int:
    """Return the whole days until a certificate ends; below 0 once it has."""
    return days_until(certificate.not_valid_after_utc, now)


def days_until(end: datetime, now: datetime) -> int:
    """Return the whole days until a moment, rounded down; below 0 once it has passed."""
    return (end - now) // timedelta(days=1)


def check_client(certificate: x509.Certificate, ca: x509.Certificate, now: datetime) -> None:
    """Raise CertificateError unless a TLS server that trusts `ca` accepts this certificate now."""
    try:
        certificate.verify_directly_issued_by(ca)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm) as error:
        raise CertificateError(
            f"the certificate was not signed by the authority {fingerprint(ca)}; ask the centre "
            "for a new admission file"
        ) from error
    if now < certificate.not_valid_before_utc:
        raise CertificateError(
            f"the certificate is valid from {certificate.not_valid_before_utc:%Y-%m-%d %H:%M} UTC, "
            f"and this clock says {now.astimezone(UTC):%Y-%m-%d %H:%M} UTC; set the clock right"
        )
    if now > certificate.not_valid_after_utc:
        raise CertificateError(
            f"the certificate ended on {certificate.not_valid_after_utc:%Y-%m-%d}; ask the centre "
            "for a new one (wardround-server rotate)"
        )
    verifier = PolicyBuilder().store(Store([ca])).time(now).build_client_verifier()
    try:
        verifier.verify(certificate, [])
    except VerificationError as error:
        raise CertificateError(
            f"the certificate or its authority is not fit for TLS ({error}); ask the centre for a "
            "new admission file"
        ) from error


def _p384(key: PublicKeyTypes, what: str) -> ec.EllipticCurvePublicKey:
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP384R1):
        raise CertificateError(f"{what}: {_not_ours(key)}")
    return key


def _not_ours(key: PublicKeyTypes) -> str:
    kind = key.curve.name if isinstance(key, ec.EllipticCurvePublicKey) else type(key).__name__
    return f"its key is of {kind}; only P-384 (secp384r1) is used, which wardround makes itself"
