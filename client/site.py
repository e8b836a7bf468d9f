"""What a hospital sets for itself. None of it ever leaves, none of it ever arrives."""

import functools
from dataclasses import dataclass
from pathlib import Path

import yaml

from client.privacy.policy import Policy, load_policy
from common.checks import positive
from common.schema import SettingsError, typed
from common.system_errors import reason_of


@dataclass(frozen=True, kw_only=True)
class Site:
    """One hospital's own settings, read from its site.yaml."""

    name: str
    """The name that the coordinating centre knows."""
    manifest: str
    """CSV or TSV file of images, or a folder; relative to site.yaml."""
    state: str = "state"
    """Folder of what the site remembers: ledgers, key, last reply; relative to site.yaml."""
    policy: str = ""
    """File of the site's policy; relative to site.yaml. Empty: the strict defaults."""
    device: str = "cpu"
    """cpu, cuda, or cuda:N."""
    threads: int = 1
    """CPU threads of the trainer. Another number may give other last digits."""
    socket: str = ""
    """Unix socket on which the trainer service listens; relative to site.yaml, in a folder that
    other users may not enter. Empty: trainer/trainer.sock in the state folder."""
    folder: str = ""
    """Folder of site.yaml itself; filled in when it is read."""

    def __post_init__(self) -> None:
        positive(**{"site.threads": self.threads})
        if self.device.split(":")[0] not in ("cpu", "cuda"):
            raise ValueError(f"site.device={self.device!r} is not known; give cpu, cuda or cuda:N")

    @property
    def manifest_path(self) -> Path:
        """Where the images are listed."""
        return Path(self.folder, self.manifest)

    def load_policy(self) -> Policy:
        """Return what a study must keep to here, and what may leave."""
        return load_policy(Path(self.folder, self.policy)) if self.policy else Policy()

    @property
    def state_path(self) -> Path:
        """Where the site remembers."""
        return Path(self.folder, self.state)

    @property
    def socket_path(self) -> Path:
        """Where the trainer service listens."""
        if self.socket:
            return Path(self.folder, self.socket)
        # A folder of its own: the courier's user enters this one, and not that of the secrets.
        return self.state_path / "trainer" / "trainer.sock"

    @property
    def ledgers_path(self) -> Path:
        """Where the ledgers of the site's data sets lie."""
        return self.state_path / "ledgers"


def load_site(path: Path) -> Site:
    """Return the settings in a site.yaml.

    Raises:
        SettingsError: the file is absent, or a key is unknown, missing or of another type.
    """
    try:
        site = _site_of(path.read_text(), str(path.resolve().parent))
    except (OSError, yaml.YAMLError) as error:
        raise SettingsError(
            f"{path} cannot be read as a site's settings: {reason_of(error)}; name "
            "another with --site"
        ) from error
    if site is None:
        raise SettingsError(f"{path} holds no settings; a site's has name and manifest at least")
    return site


@functools.lru_cache(maxsize=4096)
def _site_of(text: str, folder: str) -> Site | None:
    """Return the settings in a text, read once a process; None where it holds none."""
    values = yaml.safe_load(text)
    if not isinstance(values, dict):
        return None
    return typed({**values, "folder": folder}, Site, "site")
