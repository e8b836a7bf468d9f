"""A long run as files that its page reads, of any number of rounds; nothing is trained."""

import json
import math
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from common.finished import RESULT
from server.events import EVENTS

SITES = 64
NAMES = tuple(f"hospital-{number:02d}" for number in range(SITES))
METRIC = "dice"
EPSILON = 8.0
"""Of every site, once all planned rounds are done."""
BYTES, SECONDS, ROUND_SECONDS = 9_000_000, 1.5, 2.0
"""A site's weights, one way, and its work in a round; a round."""


def begin_run(folder: Path, planned: int) -> None:
    """Write the folder of a run that has just begun."""
    folder.mkdir()
    (folder / "run.json").write_text("{}")
    enrolled = [_line("start", rounds=planned, done=0), _line("enrolled", sites=NAMES, absent={})]
    (folder / EVENTS).write_text("".join(enrolled))


def tell_rounds(folder: Path, first: int, last: int, planned: int) -> None:
    """Add these rounds to the run's log, in the words of server/run.py."""
    with (folder / EVENTS).open("a") as log:
        for number in range(first, last + 1):
            log.writelines(_events(number, planned))


def end_run(folder: Path, rounds: int, planned: int) -> None:
    """Write result.json, with a record of every round and site, and the end of the log."""
    values = _values(rounds)
    told = {
        site: {METRIC: {"value": value, "low": value, "high": value, "n": 20}}
        for site, value in values.items()
    }
    patients = {"patients_train": 80, "patients_held_out": 20}
    account = {"epsilon": _epsilon(rounds, planned), "delta": 1e-3, "unit": "patient"}
    worst = min(NAMES, key=lambda site: values[site])
    about: dict[str, Any] = {
        "schema_version": 1,
        "status": "completed",
        "reason": None,
        "study": {"name": folder.name, "rounds": planned, "privacy": {"mechanism": "dp_sgd"}},
        "study_digest": "0" * 64,
        "headline": METRIC,
        "metrics": {METRIC: {"higher_is_better": True, "low": 0.0, "high": 1.0, "unit": ""}},
        "seconds": rounds * ROUND_SECONDS,
        "sites": dict.fromkeys(NAMES, patients),
        "privacy": dict.fromkeys(NAMES, account),
        "final": {
            "sites": told,
            "missing": {},
            "mean": {METRIC: sum(values.values()) / SITES},
            "worst": {METRIC: values[worst]},
            "worst_site": {METRIC: worst},
        },
    }
    with (folder / RESULT).open("w") as file:
        # A round at a time: of 10,000 it is more than a hundred megabytes.
        file.write(json.dumps(about)[:-1] + ', "rounds": [')
        for number in range(1, rounds + 1):
            file.write("," * (number > 1) + json.dumps(_record(number, planned)))
        file.write("]}")
    with (folder / EVENTS).open("a") as log:
        log.write(_line("end", status="completed", reason=None, epsilon={}))


def _events(number: int, planned: int) -> Iterator[str]:
    yield _line("round", round=number, of=planned, sites=NAMES)
    for site in NAMES:
        yield _line("reply", site=site, round=number, why=None)
    yield _line("measured", round=number - 1, metric=METRIC, values=_values(number))
    epsilon = dict.fromkeys(NAMES, _epsilon(number, planned))
    done = {"round": number, "seconds": ROUND_SECONDS, "sites": _parts(number), "missing": {}}
    yield _line("round done", **done, epsilon=epsilon)


def _parts(number: int) -> dict[str, dict[str, Any]]:
    part = {"seconds": SECONDS, "bytes_sent": BYTES, "bytes_received": BYTES}
    return {site: {**part, "train_loss": 1 - value} for site, value in _values(number).items()}


def _record(number: int, planned: int) -> dict[str, Any]:
    account = {"privacy": {"epsilon": _epsilon(number, planned)}}
    return {
        "round": number,
        "seconds": ROUND_SECONDS,
        "participants": NAMES,
        "sites": {site: {**part, **account} for site, part in _parts(number).items()},
        "missing": {},
    }


def _values(number: int) -> Mapping[str, float]:
    grown = 1 - 0.8 * 0.9995**number
    return {site: grown - (7 * place + number) % 13 / 100 for place, site in enumerate(NAMES)}


def _epsilon(number: int, planned: int) -> float:
    return EPSILON * math.sqrt(number / planned)


def _line(event: str, **fields: Any) -> str:  # noqa: ANN401 - JSON
    return json.dumps({"time": round(time.time(), 3), "event": event, **fields}) + "\n"
