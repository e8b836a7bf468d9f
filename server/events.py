"""What happens in a run, as it happens: one JSON object a line in events.jsonl."""

import json
import time
from collections.abc import Callable
from pathlib import Path

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
