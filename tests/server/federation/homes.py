"""A federation and its requests for tests."""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from common.certificates import new_key, signing_request
from server.federation.home import FederationSettings, Home, make_home

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


def a_home(
    folder: Path,
    name: str = "Nordic chest",
    now: datetime = NOW,
    hosts: Sequence[str] = ("localhost", "127.0.0.1"),
) -> Home:
    """A new federation on loopback."""
    settings = FederationSettings(name=name, hosts=list(hosts), port=8443)
    return make_home(folder, settings, now)


def a_request(name: str) -> bytes:
    """The request of a new site."""
    return signing_request(new_key(), name)
