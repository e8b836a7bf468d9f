"""What a site has told, for itself: a line for every answer that left through its gate.

    state/told.jsonl   0600; one JSON object a line, the newest last; it never leaves

The data officer sees there what the server saw, number by number, and nothing is in it that did
not leave. The weights of an update are not in it.
"""

import json
import os
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from common.contract import Description, EvaluateReply, Released, TrainReply
from common.secret_files import PRIVATE

FILE = "told.jsonl"
KINDS = {Description: "description", TrainReply: "update", EvaluateReply: "evaluation"}


def note_told(state: Path, digest: str, answer: Released) -> None:
    """Write down what an answer to a request of a study says.

    Raises:
        OSError: it cannot be written.
    """
    body = answer.body
    told = {
        "time": round(time.time(), 3),
        "study": digest,
        "kind": KINDS.get(type(body), "refusal"),
        **asdict(body),
    }
    state.mkdir(parents=True, exist_ok=True)
    # It has losses and times of patients' data: other users of the machine do not read it.
    descriptor = os.open(state / FILE, os.O_WRONLY | os.O_APPEND | os.O_CREAT, PRIVATE)
    with open(descriptor, "a") as file:
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
