"""A certificate of the house that the centre's page shows, in place of the federation's own.

It is whatever browsers trust: of any kind of key, with the certificates of those who signed it.
"""

import ssl
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509

from common.certificates import CertificateError, private_bytes


@dataclass(frozen=True, kw_only=True)
class HousePair:
    """Where it and its key lie; others put them there and renew them."""

    certificate: Path
    """PEM: the page's own certificate, then those of who signed it."""
    key: Path
    """PEM, 0600, without a password."""

    def load_into(self, context: ssl.SSLContext) -> x509.Certificate:
        """Load the pair into a TLS context, also one in use, and return the certificate.

        Raises:
            CertificateError: the files are absent, broken or of two pairs.
        """
        private_bytes(self.key)
        try:
            certificates = x509.load_pem_x509_certificates(self.certificate.read_bytes())
            # Without one OpenSSL would ask the terminal.
            context.load_cert_chain(self.certificate, self.key, password="")
        except (OSError, ValueError) as error:
            raise CertificateError(
                f"{self.certificate}: it and {self.key} cannot be shown ({error}); give the "
                "certificate with those of who signed it in PEM, and its key without a password"
            ) from error
        return certificates[0]


def names_of(certificate: x509.Certificate) -> list[str]:
    """Return the names and addresses that a certificate is for; `*.` before one is any one label.

    Raises:
        CertificateError: it is for none.
    """
    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound as error:
        raise CertificateError(
            "the page's certificate is for no name (it has no subjectAltName), and no browser "
            "takes such a one; have one made for the names that the page is opened by"
        ) from error
    names = found.get_values_for_type(x509.DNSName)
    return [*names, *map(str, found.get_values_for_type(x509.IPAddress))]
