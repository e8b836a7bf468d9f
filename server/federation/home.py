"""The folder of a federation at the centre.

federation.yaml          name, hosts, port
ca/ca.key  ca/ca.pem     the authority; keep an offline copy of this folder
server/server.key .pem   what the server shows to sites
sites/NAME.json          one file a site (registry.py)
runs/                    results of studies
database/                Flower's state
.lock                    held by whoever changes one of these
"""

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path

import yaml

from common.admission import check_address
from common.certificates import (
    certificate_pem,
    read_certificate,
    read_private_key,
)
from common.credentials import Credentials
from common.locks import waited_for
from common.schema import SettingsError, typed
from common.secret_files import PUBLIC, private_folder, replace_file
from server.federation.authority import Authority, new_authority

HOME_VARIABLE = "WARDROUND_HOME"
DEFAULT_HOME = "federation"
DEFAULT_PORT = 8443
_SETTINGS, _UNFINISHED = "federation.yaml", ".unfinished"
_FOLDERS = ("ca", "server", "sites", "runs", "database")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._-]{0,47}")


class HomeError(ValueError):
    """A folder that cannot be used as a federation's home; the text says what helps."""


@dataclass(frozen=True, kw_only=True)
class FederationSettings:
    """What federation.yaml says. Kept for the life of the federation, but for hosts and port."""

    name: str
    """Told to every site; in the subject of every certificate."""
    hosts: list[str]
    """Names and addresses at which sites reach the centre; all are in the server's certificate.
    After a change run `wardround-server rotate --server`."""
    port: int = DEFAULT_PORT
    """TCP port there."""

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise ValueError(
                f"federation.name={self.name!r} is not allowed; give up to 48 letters, digits, "
                "blanks and . _ -, the first a letter or a digit"
            )
        check_address(self.hosts, self.port)


@dataclass(frozen=True, kw_only=True)
class Home:
    """A federation's home; `open_home` and `make_home` return it."""

    path: Path
    """The folder."""
    settings: FederationSettings
    """What federation.yaml said when it was opened."""

    @property
    def sites(self) -> Path:
        """Folder of the sites' records."""
        return self.path / "sites"

    @property
    def runs(self) -> Path:
        """Folder of results."""
        return self.path / "runs"

    @property
    def database(self) -> Path:
        """Folder of Flower's state."""
        return self.path / "database"

    @property
    def ca_certificate(self) -> Path:
        """The authority's certificate: what the server trusts, and what the sites trust."""
        return _authority(self.path).certificate

    @property
    def server(self) -> Credentials:
        """The server's own key and certificate."""
        return _server(self.path)

    def authority(self) -> Authority:
        """Return the authority, able to sign.

        Raises:
            CertificateError: its key or certificate is absent, broken, or others may read the key.
        """
        files = _authority(self.path)
        certificate = read_certificate(files.certificate)
        files.key_of(certificate)
        key = read_private_key(files.key)
        return Authority(key=key, certificate=certificate, federation=self.settings.name)

    @contextmanager
    def changing(self) -> Iterator[None]:
        """Hold the home's lock; other changes wait. Readers need none."""
        with waited_for(self.path / ".lock"):
            yield


def home_folder(told: Path | None, environment: Mapping[str, str] = os.environ) -> Path:
    """Return the folder of --home, else of $WARDROUND_HOME, else ./federation."""
    return told or Path(environment.get(HOME_VARIABLE) or DEFAULT_HOME)


def open_home(path: Path) -> Home:
    """Return the federation in a folder.

    Raises:
        HomeError: there is none.
        SettingsError: federation.yaml cannot be used.
    """
    file = path / _SETTINGS
    if not file.is_file():
        raise HomeError(
            f"{path} is no federation's home: it has no {_SETTINGS}; name the right folder with "
            f"--home or ${HOME_VARIABLE}, or make one with wardround-server init"
        )
    try:
        values = yaml.safe_load(file.read_text())
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise SettingsError(f"{file} cannot be read as settings: {error}") from error
    if not isinstance(values, dict):
        raise SettingsError(f"{file} holds no settings; it has name, hosts and port")
    return Home(path=path, settings=typed(values, FederationSettings, "federation"))


def make_home(path: Path, settings: FederationSettings, now: datetime) -> Home:
    """Make a federation: its authority, its server's certificate, no sites.

    federation.yaml comes last: a folder without it was cut short, and is made anew.

    Raises:
        HomeError: the folder holds a federation, or files of that name that this did not make.
    """
    private_folder(path)
    with waited_for(path / ".lock"):
        _check_free(path)
        replace_file(path / _UNFINISHED, b"")
        for name in _FOLDERS:
            private_folder(path / name)
        files = _authority(path)
        key = files.make_key()
        certificate = new_authority(settings.name, key, now)
        replace_file(files.certificate, certificate_pem(certificate), PUBLIC)
        authority = Authority(key=key, certificate=certificate, federation=settings.name)
        server = _server(path)
        server_key = server.make_key().public_key()
        server.install(authority.server_certificate(settings.hosts, server_key, now))
        text = yaml.safe_dump(asdict(settings), sort_keys=False)
        replace_file(path / _SETTINGS, text.encode(), PUBLIC)
        (path / _UNFINISHED).unlink()
    return Home(path=path, settings=settings)


def _check_free(path: Path) -> None:
    if (path / _SETTINGS).exists():
        raise HomeError(
            f"{path} holds a federation already; give another folder with --home, or go on with it "
            "(wardround-server sites)"
        )
    there = [name for name in _FOLDERS if (path / name).exists()]
    if there and not (path / _UNFINISHED).exists():
        raise HomeError(
            f"{path} has {', '.join(there)} but no {_SETTINGS}; restore that file if this was a "
            "federation, or give an empty folder with --home"
        )


def _authority(path: Path) -> Credentials:
    return Credentials(key=path / "ca" / "ca.key", certificate=path / "ca" / "ca.pem")


def _server(path: Path) -> Credentials:
    return Credentials(key=path / "server" / "server.key", certificate=path / "server/server.pem")
