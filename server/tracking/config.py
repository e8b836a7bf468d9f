"""Where a run is told of besides its own folder."""

import ipaddress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import urlsplit

from common.checks import positive

LEAST_SECRET_BYTES = 16


@dataclass(frozen=True, kw_only=True)
class TrackingConfig:
    """Settings of `federation/tracking.yaml`, and of simulation.tracking."""

    mlflow: str | None = None
    """Tracking URI of MLflow, as https://mlflow.example.org or sqlite:///mlflow.db; null: none.
    A name and a password are read from MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD."""
    tensorboard: bool = False
    """Whether the run's folder gets a folder `tensorboard`."""
    webhook: str | None = None
    """URL that is told when a study ends, stalls or misses a site; https, or http on loopback."""
    webhook_secret: str | None = None
    """File of the secret that signs what the webhook is told; 16 bytes at least."""
    stall_s: float = 3600.0
    """Seconds without any event after which a study counts as stalled."""

    def __post_init__(self) -> None:
        positive(**{"tracking.stall_s": self.stall_s})
        if self.mlflow is not None and "@" in urlsplit(self.mlflow).netloc:
            raise ValueError(
                "tracking.mlflow holds a name or a password; set MLFLOW_TRACKING_USERNAME and "
                "MLFLOW_TRACKING_PASSWORD in the environment instead"
            )
        wanted = {"mlflow": self.mlflow is not None, "tensorboardX": self.tensorboard}
        for module in (module for module, is_wanted in wanted.items() if is_wanted):
            if find_spec(module) is None:
                raise ValueError(
                    f"tracking needs {module}, which is not installed; run  pip install "
                    "'wardround[tracking]'"
                )
        if self.webhook is not None:
            _check_url(self.webhook)
            self.secret()

    def secret(self) -> bytes:
        """Return what signs the webhook's bodies.

        Raises:
            ValueError: there is none, or it is too short.
        """
        if self.webhook_secret is None:
            raise ValueError("tracking.webhook needs tracking.webhook_secret, the file of a secret")
        try:
            found = Path(self.webhook_secret).read_bytes().strip()
        except OSError as error:
            raise ValueError(
                f"tracking.webhook_secret={self.webhook_secret} cannot be read: {error}"
            ) from error
        if len(found) < LEAST_SECRET_BYTES:
            raise ValueError(
                f"tracking.webhook_secret={self.webhook_secret} has {len(found)} bytes; make one "
                f"with  openssl rand -hex 32 > {self.webhook_secret}"
            )
        return found


def _check_url(url: str) -> None:
    parts = urlsplit(url)
    host = parts.hostname or ""
    try:
        loopback = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        loopback = False
    if not host or not (parts.scheme == "https" or (parts.scheme == "http" and loopback)):
        raise ValueError(
            f"tracking.webhook={url} is not allowed; give an https URL, or an http one on loopback"
        )
