"""The federation's own certificate authority: what is in each of its certificates, and how long.

RFC 5280; P-384 and SHA-384 throughout. The authority signs sites and the server, and may not sign
another authority (path length 0).
"""

import ipaddress
from dataclasses import dataclass
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from common.certificates import SERVER_NAME, CertificateError, check_site_name

AUTHORITY_DAYS = 3653
SERVER_DAYS = 365
SITE_DAYS = 180
BACKDATE = timedelta(days=1)
"""How far a clock may lag behind the centre's and still find a new certificate valid."""


@dataclass(frozen=True, kw_only=True)
class Authority:
    """The key and the certificate that sign for a federation."""

    key: ec.EllipticCurvePrivateKey
    """Never leaves the centre."""
    certificate: x509.Certificate
    """Self-signed; every site keeps a copy."""
    federation: str
    """The federation's name; the organisation in every subject."""

    def site_certificate(
        self, name: str, key: ec.EllipticCurvePublicKey, now: datetime, days: int = SITE_DAYS
    ) -> x509.Certificate:
        """Return a site's certificate: for a TLS client and nothing else.

        Raises:
            CertificateError: the name or the days are not allowed, or the authority has ended.
        """
        check_site_name(name)
        # A verifier wants an alternative name; a site is no host, so its name here is no DNS name.
        spoken = x509.UniformResourceIdentifier(f"urn:wardround:site:{name}")
        return self._issued(name, key, [spoken], ExtendedKeyUsageOID.CLIENT_AUTH, now, days)

    def server_certificate(
        self, hosts: list[str], key: ec.EllipticCurvePublicKey, now: datetime
    ) -> x509.Certificate:
        """Return the server's certificate for its host names and addresses."""
        spoken = [_general_name(host) for host in hosts]
        usage = ExtendedKeyUsageOID.SERVER_AUTH
        return self._issued(SERVER_NAME, key, spoken, usage, now, SERVER_DAYS)

    def _issued(
        self,
        name: str,
        key: ec.EllipticCurvePublicKey,
        spoken: list[x509.GeneralName],
        usage: x509.ObjectIdentifier,
        now: datetime,
        days: int,
    ) -> x509.Certificate:
        if not 1 <= days <= AUTHORITY_DAYS:
            raise CertificateError(
                f"days={days} is not allowed; give a value from 1 to {AUTHORITY_DAYS}"
            )
        end = self.certificate.not_valid_after_utc
        if now >= end:
            raise CertificateError(
                f"the federation's authority ended on {end:%Y-%m-%d}; make a new federation with "
                "wardround-server init, and admit every site again"
            )
        builder = _builder(_subject(name, self.federation), key, now, min(_after(now, days), end))
        builder = builder.issuer_name(self.certificate.subject)
        builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), True)
        builder = builder.add_extension(_key_usage(authority=False), True)
        builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), False)
        builder = builder.add_extension(x509.SubjectAlternativeName(spoken), False)
        own = self.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
        issuer = x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(own)
        return builder.add_extension(issuer, False).sign(self.key, hashes.SHA384())


def new_authority(
    federation: str, key: ec.EllipticCurvePrivateKey, now: datetime
) -> x509.Certificate:
    """Return the self-signed certificate of a new federation's authority, for ten years."""
    subject = _subject(f"{federation} authority", federation)
    builder = _builder(subject, key.public_key(), now, _after(now, AUTHORITY_DAYS))
    builder = builder.issuer_name(subject)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), True)
    return builder.add_extension(_key_usage(authority=True), True).sign(key, hashes.SHA384())


def _builder(
    subject: x509.Name, key: ec.EllipticCurvePublicKey, now: datetime, end: datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before((now - BACKDATE).replace(microsecond=0))
        .not_valid_after(end)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), False)
    )


def _after(now: datetime, days: int) -> datetime:
    # A certificate's times are whole seconds; rounded up, all the days are there.
    return (now + timedelta(days=days, seconds=1)).replace(microsecond=0)


def _subject(name: str, federation: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, federation),
            x509.NameAttribute(NameOID.COMMON_NAME, name),
        ]
    )


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _key_usage(*, authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not authority,
        key_cert_sign=authority,
        crl_sign=authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
