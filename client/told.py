"""What a site has told, for itself: a line of numbers for every answer that left through its gate.

    state/told.jsonl   one JSON object a line, the newest last; it never leaves

The data officer sees there what the server saw, round by round, and nothing is in it that did not
leave.
"""

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from common.contract import EvaluateReply, Released, TrainReply

FILE = "told.jsonl"


def note_told(state: Path, digest: str, answer: Released) -> None:
    """Write down what an answer says of a round; an answer of another kind is left out."""
    body = answer.body
    if not isinstance(body, (TrainReply, EvaluateReply)):
        return
    told = {
        "time": round(time.time(), 3),
        "study": digest,
        "round": body.round,
        "kind": "update" if isinstance(body, TrainReply) else "evaluation",
        "seconds": body.seconds,
        "values": {name: estimate.value for name, estimate in body.estimates.items()},
        "epsilon": None if body.privacy is None else body.privacy.epsilon,
    }
    if isinstance(body, TrainReply):
        told |= {"steps": body.steps, "train_loss": body.train_loss}
    state.mkdir(parents=True, exist_ok=True)
    with (state / FILE).open("a") as file:
        file.write(json.dumps(told) + "\n")


def told_of(state: Path) -> dict[str, list[Mapping[str, Any]]]:
    """Return by study what was told, the oldest first, without what a kill cut in two."""
    path = state / FILE
    found: dict[str, list[Mapping[str, Any]]] = {}
    if not path.exists():
        return found
    for line in path.read_text().splitlines():
        try:
            told = json.loads(line)
            found.setdefault(told["study"], []).append(told)
        except (ValueError, KeyError, TypeError):
            continue
    return found
