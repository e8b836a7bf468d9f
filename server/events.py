"""What happens in a run, as it happens: one JSON object a line in events.jsonl."""

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

EVENTS = "events.jsonl"

Tell = Callable[..., None]
"""Called as tell(event, **fields)."""


def event_log(folder: Path) -> Tell:
    """Return the function that appends an event to the run's log."""
    path = folder / EVENTS

    def tell(event: str, **fields: object) -> None:
        line = json.dumps({"time": round(time.time(), 3), "event": event, **fields})
        with path.open("a") as file:
            file.write(line + "\n")

    return tell


def words_of(event: Mapping[str, Any]) -> str:
    """Return what an event tells besides its time and its name, as one line for a person."""
    known = {k: v for k, v in event.items() if k not in ("time", "event") and v is not None}
    return "  ".join(f"{key}={_shown(value)}" for key, value in known.items())


def _shown(value: object) -> object:
    # What a round tells of each site is for programs.
    if isinstance(value, dict) and any(isinstance(of, dict) for of in value.values()):
        return f"{len(value)} sites"
    return value
