"""The sites of a federation: one JSON file each, replaced whole, read at every request.

A file's name is its site's, so names are unique. Nothing is ever taken out: a key that was revoked
stays known, and is not admitted again under any name.
"""

import json
import logging
import os
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from common.certificates import (
    WARN_DAYS,
    CertificateError,
    check_site_name,
    days_until,
    key_fingerprint,
    key_of_openssh,
    public_der,
)
from common.secret_files import replace_file
from server.federation.home import Home

SUFFIX = ".json"
_LOG = logging.getLogger(__name__)


class RegistryError(ValueError):
    """A record that is broken, or a change that may not be; the text says what helps."""


@dataclass(frozen=True, kw_only=True)
class Issued:
    """A certificate that a site was given."""

    serial: int
    """Its serial number."""
    issued: datetime
    """When it was signed."""
    not_after: datetime
    """When it ends."""
    revoked: datetime | None = None
    """Since when it is refused; None while it is not."""


@dataclass(frozen=True, kw_only=True)
class SiteEntry:
    """What the centre knows of a site."""

    name: str
    """Unique in the federation."""
    public_key: str
    """The site's key in OpenSSH's form; Flower's node key."""
    admitted: datetime
    """When the site was admitted, with this or an earlier key, since it was last revoked."""
    certificates: tuple[Issued, ...] = ()
    """All that it was ever given, the oldest first."""
    former_keys: tuple[str, ...] = ()
    """Keys in OpenSSH's form that the site had; never admitted again."""
    revoked: datetime | None = None
    """Since when the site is refused; None while it is not."""
    reason: str = ""
    """Why it was revoked, in the words of the centre."""

    def __post_init__(self) -> None:
        check_site_name(self.name)
        for key in (self.public_key, *self.former_keys):
            key_of_openssh(key)

    @property
    def serials(self) -> tuple[int, ...]:
        """Serial numbers of the certificates that are not revoked; some may have ended."""
        return tuple(c.serial for c in self.certificates if c.revoked is None)

    @property
    def not_after(self) -> datetime:
        """End of the certificate that lasts longest and is not revoked, else of the longest."""
        ends = [c.not_after for c in self.certificates if c.revoked is None]
        return max(ends or [c.not_after for c in self.certificates])

    @property
    def key_fingerprint(self) -> str:
        """SHA-256 of the public key, as ssh-keygen shows it."""
        return key_fingerprint(self.public_key)

    @property
    def banned_keys(self) -> frozenset[str]:
        """Keys that may never be admitted again."""
        return frozenset([*self.former_keys, *([self.public_key] if self.revoked else [])])

    def days_left(self, now: datetime) -> int:
        """Return the whole days until the last certificate ends."""
        return days_until(self.not_after, now)

    def status(self, now: datetime) -> str:
        """Return revoked, expired, expiring (in fewer than WARN_DAYS days) or admitted."""
        if self.revoked is not None:
            return "revoked"
        if now > self.not_after:
            return "expired"
        return "expiring" if self.days_left(now) < WARN_DAYS else "admitted"

    def without_certificates(self, now: datetime) -> "SiteEntry":
        """Return the site with every certificate revoked; earlier revocations keep their date."""
        ended = tuple(replace(c, revoked=c.revoked or now) for c in self.certificates)
        return replace(self, certificates=ended)


@dataclass(frozen=True)
class _Version:
    """One file as it was read."""

    stamp: tuple[int, int, int]
    entry: SiteEntry | None
    key_der: bytes = b""

    def stands(self, folder: Path) -> bool:
        """Return whether the file is still this version of it."""
        if self.entry is None:
            return False
        try:
            return _stamp((folder / (self.entry.name + SUFFIX)).stat()) == self.stamp
        except OSError:
            return False


@dataclass(frozen=True)
class _Snapshot:
    versions: dict[str, _Version] = field(default_factory=dict)
    by_serial: dict[int, tuple[Issued, _Version]] = field(default_factory=dict)


class Registry:
    """The sites, as they are on disk at each call; one reader may be shared by threads.

    What was read stays in memory until its file changes (common/secret_files.py says why a change
    cannot be missed): `site_of` of a known certificate costs one stat, the rest one a site.
    """

    def __init__(self, home: Home) -> None:
        self._folder = home.sites
        self._snapshot = _Snapshot()

    def site_of(
        self, serial: int, public_key_der: bytes, now: datetime | None = None
    ) -> str | None:
        """Return which site shows this certificate, or None if it may not come in.

        The certificate's signature and dates were checked by TLS; here it is known, not revoked,
        and of the site's present key. With `now` also one that ended since the handshake is None.

        Raises:
            RegistryError: the folder of sites cannot be read.
        """
        found = self._snapshot.by_serial.get(serial)
        # A serial is in one file alone, so while that stands as it was read the others may wait.
        if found is None or not found[1].stands(self._folder):
            found = self._current().by_serial.get(serial)
        if found is None:
            return None
        issued, version = found
        entry = version.entry
        if entry is None or entry.revoked or issued.revoked or version.key_der != public_key_der:
            return None
        return None if now is not None and now > issued.not_after else entry.name

    def sites(self) -> list[SiteEntry]:
        """Return every site, revoked ones too, by name.

        Raises:
            RegistryError: a record is broken, or the folder cannot be read.
        """
        versions = self._current().versions
        return [
            version.entry or _read(self._folder / name)
            for name, version in sorted(versions.items())
        ]

    def admitted(self) -> list[SiteEntry]:
        """Return the sites that may come in; one whose record is broken is left out, and logged.

        Raises:
            RegistryError: the folder cannot be read.
        """
        entries = [version.entry for _, version in sorted(self._current().versions.items())]
        return [entry for entry in entries if entry is not None and entry.revoked is None]

    def site(self, name: str) -> SiteEntry | None:
        """Return one site, or None."""
        check_site_name(name)
        version = self._current().versions.get(name + SUFFIX)
        return None if version is None else version.entry or _read(self._folder / (name + SUFFIX))

    def save(self, entry: SiteEntry) -> None:
        """Replace a site's record, or add it; the caller holds the home's lock."""
        replace_file(self._folder / (entry.name + SUFFIX), _json_of(entry))

    def _current(self) -> _Snapshot:
        snapshot, versions = self._snapshot, {}
        try:
            with os.scandir(self._folder) as files:
                for file in files:
                    # A name with a dot in front is a write that has not ended.
                    if file.name.endswith(SUFFIX) and not file.name.startswith("."):
                        known = snapshot.versions.get(file.name)
                        versions[file.name] = _version(self._folder / file.name, known)
        except OSError as error:
            raise RegistryError(
                f"{self._folder}: the sites cannot be read ({error}), so none may come in; see "
                "that the folder is there and this user may read it"
            ) from error
        if versions != snapshot.versions:
            snapshot = _Snapshot(versions, _by_serial(versions))
            self._snapshot = snapshot
        return snapshot


def _by_serial(versions: dict[str, _Version]) -> dict[int, tuple[Issued, _Version]]:
    return {
        issued.serial: (issued, version)
        for version in versions.values()
        if version.entry is not None
        for issued in version.entry.certificates
    }


def _stamp(stat: os.stat_result) -> tuple[int, int, int]:
    return stat.st_ino, stat.st_mtime_ns, stat.st_size


def _version(path: Path, known: _Version | None) -> _Version:
    if known is not None and known.stamp == _stamp(path.stat()):
        return known
    with path.open("rb") as file:
        # Of the file that was opened, which may already be the next one.
        stamp, content = _stamp(os.fstat(file.fileno())), file.read()
    try:
        entry = _entry_of(content, path)
    except RegistryError as error:
        # One broken record keeps its own site out, not the others.
        _LOG.error("%s", error)
        return _Version(stamp, None)
    return _Version(stamp, entry, public_der(key_of_openssh(entry.public_key)))


def _read(path: Path) -> SiteEntry:
    return _entry_of(path.read_bytes(), path)


def _json_of(entry: SiteEntry) -> bytes:
    body = {
        **vars(entry),
        "admitted": entry.admitted.isoformat(),
        "revoked": entry.revoked and entry.revoked.isoformat(),
        "certificates": [
            {
                "serial": f"{c.serial:x}",
                "issued": c.issued.isoformat(),
                "not_after": c.not_after.isoformat(),
                "revoked": c.revoked and c.revoked.isoformat(),
            }
            for c in entry.certificates
        ],
    }
    return (json.dumps(body, indent=2, sort_keys=True) + "\n").encode()


def _entry_of(content: bytes, path: Path) -> SiteEntry:
    try:
        body = json.loads(content)
        entry = SiteEntry(
            name=body["name"],
            public_key=body["public_key"],
            admitted=_time(body["admitted"]),
            certificates=tuple(_issued_of(each) for each in body["certificates"]),
            former_keys=tuple(body["former_keys"]),
            revoked=body["revoked"] and _time(body["revoked"]),
            reason=str(body["reason"]),
        )
        if entry.name + SUFFIX != path.name:
            raise CertificateError(f"it is of {entry.name!r}")
        if not entry.certificates:
            raise CertificateError("it names no certificate")
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise RegistryError(
            f"{path}: is no record of a site ({error}); restore it from a backup, then run "
            "wardround-server sites"
        ) from error
    return entry


def _issued_of(body: dict[str, Any]) -> Issued:
    return Issued(
        serial=int(body["serial"], 16),
        issued=_time(body["issued"]),
        not_after=_time(body["not_after"]),
        revoked=body["revoked"] and _time(body["revoked"]),
    )


def _time(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError(f"the time {text} has no zone")
    return moment.astimezone(UTC)
