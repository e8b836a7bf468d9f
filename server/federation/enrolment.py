"""Who is admitted, who no longer is, and new certificates before the old ones end.

Each change is on the disk before what it made is handed out: a certificate that the registry does
not know is refused, so a kill in between costs a repeated command and nothing else.
"""

from dataclasses import replace
from datetime import datetime

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from common.admission import Admission
from common.certificates import (
    certificate_pem,
    check_site_name,
    checked_request,
    key_of_openssh,
    openssh_public,
)
from server.federation.authority import SITE_DAYS
from server.federation.home import Home
from server.federation.registry import Issued, Registry, RegistryError, SiteEntry


def admit(home: Home, request: bytes, name: str, now: datetime, days: int = SITE_DAYS) -> Admission:
    """Admit a site by its signing request, or renew the certificate of the same key.

    A revoked site comes back under its name with a new key.

    Raises:
        CertificateError: the name, the days or the request is not as it must be.
        RegistryError: the name is another key's, or the key was revoked or is another site's.
    """
    check_site_name(name)
    key = checked_request(request, name)
    with home.changing():
        registry = Registry(home)
        known = registry.site(name)
        told = _free_key(registry, key, name)
        if known is not None and known.revoked is None and known.public_key != told:
            raise RegistryError(
                f"the name {name!r} is taken by a site with another key; if this is that site with "
                f"a new key: wardround-server rotate {name} --csr FILE; if that site has left: "
                f"wardround-server revoke {name} first; if not, ask for another name"
            )
        return _issued(home, registry, _entry(known, name, told, now), now, days)


def renew(
    home: Home, name: str, now: datetime, days: int = SITE_DAYS, request: bytes | None = None
) -> Admission:
    """Give an admitted site a new certificate: for its key, or with a request for a new key.

    For the same key the old certificate stays valid to its end. A new key replaces the old one,
    whose certificates are refused from now on.

    Raises:
        CertificateError: the request or the days are not as they must be.
        RegistryError: there is no such site, it is revoked, or the key may not be used.
    """
    key = None if request is None else checked_request(request, name)
    with home.changing():
        registry = Registry(home)
        entry = _known(registry, name)
        if entry.revoked is not None:
            raise RegistryError(
                f"{name!r} was revoked on {entry.revoked:%Y-%m-%d}; to take it back ask for a "
                f"request with a new key and run: wardround-server admit FILE --name {name}"
            )
        if key is not None and (told := _free_key(registry, key, name)) != entry.public_key:
            former = (*entry.former_keys, entry.public_key)
            entry = replace(entry.without_certificates(now), public_key=told, former_keys=former)
        return _issued(home, registry, entry, now, days)


def revoke(home: Home, name: str, now: datetime, reason: str = "") -> SiteEntry:
    """Refuse a site and every certificate of it from now on; a second time changes nothing.

    Raises:
        RegistryError: there is no such site.
    """
    with home.changing():
        registry = Registry(home)
        entry = _known(registry, name)
        if entry.revoked is None:
            entry = replace(entry.without_certificates(now), revoked=now, reason=reason)
            registry.save(entry)
        return entry


def renew_server(home: Home, now: datetime, *, new_key: bool = False) -> x509.Certificate:
    """Give the server a new certificate for the hosts of federation.yaml, as it is now.

    A listener that loads `home.server` again (Credentials.load_into) shows it from then on.
    """
    with home.changing():
        key = home.server.make_key(new=new_key).public_key()
        certificate = home.authority().server_certificate(home.settings.hosts, key, now)
        home.server.install(certificate)
        return certificate


def _known(registry: Registry, name: str) -> SiteEntry:
    entry = registry.site(name)
    if entry is None:
        raise RegistryError(
            f"there is no site {name!r} in this federation; wardround-server sites lists them"
        )
    return entry


def _free_key(registry: Registry, key: ec.EllipticCurvePublicKey, name: str) -> str:
    told = openssh_public(key)
    for entry in registry.sites():
        if told in entry.banned_keys:
            raise RegistryError(
                f"this key was revoked at {entry.name!r} and is not admitted again; tell the site "
                "to run wardround-site enroll --new-key and to send that request"
            )
        if told == entry.public_key and entry.name != name:
            raise RegistryError(
                f"this key is that of the site {entry.name!r}; a site has one name, so give that "
                "one, or ask for a request from another installation"
            )
    return told


def _entry(known: SiteEntry | None, name: str, public_key: str, now: datetime) -> SiteEntry:
    if known is None:
        return SiteEntry(name=name, public_key=public_key, admitted=now)
    if known.revoked is None:
        return known
    former = (*known.former_keys, known.public_key)
    return replace(
        known, public_key=public_key, former_keys=former, admitted=now, revoked=None, reason=""
    )


def _issued(
    home: Home, registry: Registry, entry: SiteEntry, now: datetime, days: int
) -> Admission:
    authority = home.authority()
    key = key_of_openssh(entry.public_key)
    certificate = authority.site_certificate(entry.name, key, now, days)
    issued = Issued(
        serial=certificate.serial_number, issued=now, not_after=certificate.not_valid_after_utc
    )
    registry.save(replace(entry, certificates=(*entry.certificates, issued)))
    return Admission(
        federation=home.settings.name,
        site=entry.name,
        hosts=list(home.settings.hosts),
        port=home.settings.port,
        ca=certificate_pem(authority.certificate).decode(),
        certificate=certificate_pem(certificate).decode(),
    )
