"""What happens in a run, as it happens: one JSON object a line in events.jsonl."""

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

EVENTS = "events.jsonl"
MOST_NAMED, DECIMALS = 8, 4
"""Of sites in words, one by one; of numbers there."""

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
    told = {key: _shown(value) for key, value in event.items() if key not in ("time", "event")}
    return "  ".join(f"{key}={text}" for key, text in told.items() if text)


def _shown(value: object) -> str:
    if isinstance(value, float):
        return f"{round(value, DECIMALS)}"
    if isinstance(value, dict):
        return _of_sites(value)
    if isinstance(value, list):
        return ", ".join(map(str, value)) if len(value) <= MOST_NAMED else f"{len(value)} sites"
    return "" if value is None else str(value)


def _of_sites(told: Mapping[str, Any]) -> str:
    # What a round tells of each site is for programs; why one is missing, for everybody.
    if any(isinstance(value, dict) for value in told.values()):
        return f"{len(told)} sites"
    if len(told) > MOST_NAMED and any(isinstance(value, float) for value in told.values()):
        known = [value for value in told.values() if value is not None]
        return f"{_shown(min(known))} to {_shown(max(known))} at {len(told)} sites"
    return ", ".join(f"{name}: {_shown(value) or 'none'}" for name, value in told.items())
