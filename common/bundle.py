"""The app bundle of Flower, without code: it names the installed package and nothing else.

Flower carries an app to every node as a bundle (FAB). Ours is one generated pyproject.toml, so it
is the same bytes wherever the same version is installed, and a site knows its hash beforehand.
"""

import functools
import hashlib
from dataclasses import dataclass
from importlib.metadata import version

PACKAGE = "wardround"
_PYPROJECT = """\
[project]
name = "{package}"
version = "{version}"

[tool.flwr.app]
publisher = "{package}"

[tool.flwr.app.components]
serverapp = "server.app:app"
clientapp = "client.app:app"

[tool.flwr.app.config]
overrides = ""
sites = ""
run = ""
"""


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """A bundle as Flower stores and sends it."""

    content: bytes
    sha256: str
    """64 hexadecimal digits."""


@functools.cache
def code_free_bundle() -> Bundle:
    """Return the bundle of the installed version."""
    # Not above: a process that only reads the package's name starts without Flower's tools.
    from flwr.cli.build import build_fab_from_files

    text = _PYPROJECT.format(package=PACKAGE, version=version(PACKAGE))
    content, _ = build_fab_from_files({"pyproject.toml": text.encode()})
    return Bundle(content=content, sha256=hashlib.sha256(content).hexdigest())
