"""A private key and its certificate on disk, and the change of both at a stroke.

    site.key        0600; the key in use
    site.pem        its certificate
    site.key.next   0600; a new key that waits for its certificate

The certificate is the switch: once it fits the next key, the next key is the one in use. A kill
between the two renames is mended by whoever writes next, and whoever reads takes the right pair.
"""

import os
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from common.certificates import (
    CertificateError,
    certificate_of,
    certificate_pem,
    new_key,
    private_pem,
    public_der,
    read_certificate,
    read_private_key,
    read_small,
)
from common.secret_files import PUBLIC, replace_file, sync_folder


class Pair(Protocol):
    """A certificate on disk that a TLS context can load."""

    @property
    def certificate(self) -> Path:
        """Its file."""

    def load_into(self, context: ssl.SSLContext) -> x509.Certificate:
        """Load it and its key, also into a context in use, and return it."""


@dataclass(frozen=True, kw_only=True)
class Credentials:
    """Where a key and its certificate lie. Writers of one pair must hold one lock."""

    key: Path
    """The private key in PEM."""
    certificate: Path
    """Its certificate in PEM; absent before the first `install`."""

    @property
    def next_key(self) -> Path:
        """Where a new key waits for its certificate."""
        return self.key.with_name(self.key.name + ".next")

    def make_key(self, *, new: bool = False) -> ec.EllipticCurvePrivateKey:
        """Return the key in use, or with `new` the one that waits; made if it is not there.

        No key is ever written over: a certificate for it may be on its way.
        """
        self.settle()
        path = self.next_key if new and self.key.exists() else self.key
        if not path.exists():
            replace_file(path, private_pem(new_key()))
        return read_private_key(path)

    def install(self, certificate: x509.Certificate) -> None:
        """Put a certificate of the key in use, or of the one that waits, in place.

        Raises:
            CertificateError: it is of neither; nothing was changed.
        """
        self.settle()
        self.key_of(certificate)
        replace_file(self.certificate, certificate_pem(certificate), PUBLIC)
        self.settle()

    def settle(self) -> None:
        """Finish a change of keys that a kill cut short."""
        if not self.next_key.exists() or not self.certificate.exists():
            return
        if self.key_of(read_certificate(self.certificate)) == self.next_key:
            self.next_key.replace(self.key)
            sync_folder(self.key.parent)

    def key_of(self, certificate: x509.Certificate) -> Path:
        """Return which of the two keys a certificate holds.

        Raises:
            CertificateError: neither.
        """
        return self._held(certificate)[0]

    def _held(self, certificate: x509.Certificate) -> tuple[Path, ec.EllipticCurvePrivateKey]:
        held = public_der(certificate.public_key())
        for path in (self.key, self.next_key):
            if path.exists():
                key = read_private_key(path)
                if public_der(key.public_key()) == held:
                    return path, key
        raise CertificateError(
            f"{self.key}: this private key is not the certificate's, which is of another key"
        )

    def load_into(self, context: ssl.SSLContext) -> x509.Certificate:
        """Load the pair into a TLS context, also one in use: new connections then get it.

        Raises:
            CertificateError: the files are absent, broken or of two pairs.
        """
        certificate, pair_pem = self._read_pair()
        # OpenSSL reads files only. One in memory holds the very bytes that were found to fit.
        try:
            with os.fdopen(os.memfd_create("pair"), "wb") as file:
                file.write(pair_pem)
                file.flush()
                context.load_cert_chain(f"/proc/self/fd/{file.fileno()}")
        except OSError as error:
            raise CertificateError(f"{self.certificate}: {error}") from error
        return certificate

    def _read_pair(self) -> tuple[x509.Certificate, bytes]:
        """Return the certificate, and it and its key in PEM, while a writer may change both."""
        failed_with: bytes | None = None
        while True:
            content = b""
            try:
                content = read_small(self.certificate)
                certificate = certificate_of(content, str(self.certificate))
                _, key = self._held(certificate)
                return certificate, certificate_pem(certificate) + private_pem(key)
            except CertificateError as error:
                # A change of the pair shows in the certificate, and the key follows at once: what
                # fails twice with one certificate, there before and after, was caught in no change.
                still = self.certificate.read_bytes() if self.certificate.exists() else b""
                if content == failed_with == still:
                    raise CertificateError(f"{self.certificate}: {error}") from error
                failed_with = content


def watch_certificate(context: ssl.SSLContext, own: Pair) -> Callable[[], bool]:
    """Return a function that loads a renewed certificate, and tells whether there was one.

    Connections that are open stay as they are, new ones have the new certificate.
    """
    seen = own.certificate.stat().st_mtime_ns

    def renewed() -> bool:
        nonlocal seen
        now = own.certificate.stat().st_mtime_ns
        if now == seen:
            return False
        own.load_into(context)
        seen = now
        return True

    return renewed
