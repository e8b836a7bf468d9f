"""Files that are whole or absent, whenever the power fails."""

import json
import os
from collections.abc import Iterable
from pathlib import Path
from threading import get_ident
from typing import Any

from common.durable import sync
from common.secret_files import sync_folder


def write_atomic(path: Path, content: bytes) -> None:
    """Write to a temporary name, fsync, rename, fsync the folder."""
    write_pieces(path, [content])


def write_pieces(path: Path, pieces: Iterable[bytes | memoryview]) -> None:
    """Write what may be more than is to be in memory at once; as write_atomic."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{get_ident()}.tmp")
    with temporary.open("wb") as file:
        file.writelines(pieces)
        file.flush()
        sync(file.fileno())
    temporary.replace(path)
    sync_folder(path.parent)


def write_json(path: Path, value: object) -> None:
    """Write a value as indented JSON, whole or not at all; NaN is refused."""
    text = json.dumps(value, indent=2, sort_keys=True, allow_nan=False)
    write_atomic(path, (text + "\n").encode())


def read_json(path: Path) -> Any:  # noqa: ANN401 - JSON has no type before it is checked
    """Return the value that write_json wrote."""
    return json.loads(path.read_text())
