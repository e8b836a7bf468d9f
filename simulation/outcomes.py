"""What a table reads of its runs, small enough to keep: a line a run, named by what decided it.

A run that such a file holds is not run again, on any machine.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean
from typing import Any

from pydantic import TypeAdapter

from common.config import canonical
from common.files import write_pieces
from common.schema import SettingsError
from common.strategy_config import BY_METRIC
from server.evaluation.shift import FEDERATED
from simulation.benchmark.table import cpu_model
from simulation.config import data_root, named_scanner
from simulation.run import Simulation

CHECKSUM = b"sha256"
MACHINE = ("engine", "actors", "address", "gpus_per_actor", "table")
"""Settings of a simulation that say how it is run, and not what."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a table reads of a run."""

    place: str
    """Of which table's run it was first made; for reading."""
    key: str
    """What decided it (key_of)."""
    status: str
    metric: str
    """The headline metric."""
    higher_is_better: bool
    weighted_by_held_out: bool
    """Whether the patients that it is tested on have set the sites' weights."""
    values: dict[str, dict[str, float]]
    """The headline metric by model and site, where it has a value."""
    rounds: int
    megabytes: float
    """The weights that travelled in all rounds, to the sites and back."""
    seconds: float
    made_with: str
    """Versions and processor that made it."""
    reason: str | None = None
    """Why it is not completed."""
    curve: list[tuple[int, float, float]] | None = None
    """After how many rounds, how many MB the sites had sent, and the sites' mean of the metric:
    wherever all were evaluated; null in files of before there was one."""


_OUTCOME = TypeAdapter(Outcome)


def key_of(run: Simulation, baselines: bool) -> str:
    """Return the SHA-256 of all that decides a run's outcome, but for versions and processor.

    The study, its hospitals with their scanners, the list of the images, and whether pooled and
    ensemble models are trained beside it.

    Raises:
        SettingsError: the list of the images has no checksums, so other images could have its key.
    """
    settings = run.settings
    hospitals = {k: v for k, v in asdict(settings).items() if k not in MACHINE}
    names = {*settings.overlay, *(of["scanner"] for of in settings.hospitals.values() if of)}
    scanners = {name: asdict(named_scanner(name)) for name in sorted(names)}
    listed = None if settings.source != "real" else _listed(run)
    parts = [canonical(run.study), _without_null([hospitals, scanners]), listed, baselines]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _listed(run: Simulation) -> str:
    name = run.settings.partition_config().manifest
    path = data_root(run.tree) / name
    content = path.read_bytes() if path.is_file() else b""
    if CHECKSUM not in content.split(b"\n", 1)[0]:
        raise SettingsError(
            f"{path} has no column {CHECKSUM.decode()}, by which a table tells one data set from "
            "another; add the SHA-256 of each image to it"
        )
    return hashlib.sha256(content).hexdigest()


def _without_null(value: Any) -> Any:  # noqa: ANN401 - settings of any depth
    """Leave out what is null, so that a setting that is added later changes no key."""
    if isinstance(value, dict):
        return {key: _without_null(of) for key, of in value.items() if of is not None}
    return [_without_null(of) for of in value] if isinstance(value, list) else value


def outcome_of(result: Mapping[str, Any], place: str, key: str) -> Outcome:
    """Return what a table reads of a run's result.json."""
    name = result["headline"]
    matrix = result.get("shift", {}).get("matrix", {})
    values = {model: _values(cells) for model, cells in matrix.items()}
    for model, of in result.get("baselines", {}).items():
        values[model] = _values({site: about.get(name, {}) for site, about in of["sites"].items()})
    federated = result["final"]["sites"]
    values[FEDERATED] = _values({site: of.get(name, {}) for site, of in federated.items()})
    strategy = result.get("study", {}).get("strategy", {})
    software = ", ".join(f"{what} {which}" for what, which in result["software"].items())
    return Outcome(
        place=place,
        key=key,
        status=result["status"],
        reason=result["reason"],
        metric=name,
        higher_is_better=result["metrics"][name]["higher_is_better"],
        weighted_by_held_out=any(strategy.get(setting) is not None for setting in BY_METRIC),
        values={model: of for model, of in values.items() if of and "/" not in model},
        rounds=len(result["rounds"]),
        megabytes=megabytes_of(result),
        seconds=result["seconds"],
        made_with=f"{software}, {cpu_model(Path('/proc/cpuinfo'))}",
        curve=_curve_of(result, name),
    )


def _values(cells: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    return {s: cell["value"] for s, cell in cells.items() if cell.get("value") is not None}


def _curve_of(result: Mapping[str, Any], name: str) -> list[tuple[int, float, float]]:
    """Return the points of which all have the sites of the last: a mean over others would jump."""
    after = _values({site: of.get(name, {}) for site, of in result["final"]["sites"].items()})
    points, sent = [], 0
    for record in result["rounds"]:
        parts = record["sites"]
        before = _values({site: of["before"].get(name, {}) for site, of in parts.items()})
        if before and before.keys() == after.keys():
            points.append((record["round"] - 1, sent / 1e6, mean(before.values())))
        sent += sum(part["bytes_sent"] for part in parts.values())
    if after:
        points.append((len(result["rounds"]), sent / 1e6, mean(after.values())))
    return points


def megabytes_of(result: Mapping[str, Any]) -> float:
    """Return the weights that travelled in all rounds, to the sites and back, in MB."""
    parts = [part for record in result["rounds"] for part in record["sites"].values()]
    return float(sum(part["bytes_sent"] + part["bytes_received"] for part in parts)) / 1e6


def told_makers(outcomes: Iterable[Outcome]) -> str:
    """Return which versions and processors made the outcomes, with how many each made."""
    counts = Counter(outcome.made_with for outcome in outcomes)
    return "; ".join(f"{count} by {maker}" for maker, count in sorted(counts.items()))


def read_outcomes(path: Path) -> dict[str, Outcome]:
    """Return the outcomes of a file by key.

    Raises:
        SettingsError: there is no such file, or a line is none of an outcome.
    """
    if not path.is_file():
        raise SettingsError(
            f"simulation.table.known={path} is no file; give one that a table wrote (*.runs.jsonl)"
        )
    found = {}
    for number, line in enumerate(path.read_text().splitlines(), 1):
        try:
            outcome = _OUTCOME.validate_json(line)
        except ValueError as error:
            raise SettingsError(
                f"simulation.table.known={path}: line {number} is no outcome of a run "
                f"({error}); delete it, and the run is made again"
            ) from error
        found[outcome.key] = outcome
    return found


def write_outcomes(path: Path, outcomes: Iterable[Outcome]) -> None:
    """Write outcomes a line each, sorted by place, whole or not at all."""
    inorder = sorted(outcomes, key=lambda outcome: (outcome.place, outcome.key))
    lines = (json.dumps(asdict(outcome), allow_nan=False) for outcome in inorder)
    write_pieces(path, (f"{line}\n".encode() for line in lines))
