"""The same federated training in every framework: what is the wall time of its rounds?

    python -m simulation.benchmark.equal_work --data ../shared/data [--json] [--quick]

FedAvg on pneumonia (CNN) and hippocampus (3-D U-Net), 8 and 100 virtual hospitals, 5 rounds. Ours
trains; then every peer and a bare PyTorch loop take the same steps, on the same batches, from the
same weights (simulation/benchmark/peers/work.py). All do so three times in turn, as a machine is
not as fast at one time as at another; those that take minutes, once. `round_s` is the median of
the rounds after the first, `all_s` all five, `to_bare` the ratio of the medians to the bare loop's
of the same turn, `low` and `high` its ends, `start_s` until round 1 is done: medians of the
turns. `score` is the model's headline metric on all held-out patients, `apart` its largest distance
to the bare loop's weights, over the largest weight: of the first turn.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from client.cohort import Samples
from client.evaluation import evaluate, predict
from client.site_data import cohort_of
from client.trainer import trainer_at
from client.training import PlainGradient
from common.config import travelling
from common.seeding import generator, seed
from common.study import Study
from common.tasks.registry import build_task
from common.tensor_files import read_tensors
from server.events import EVENTS
from server.run import MODEL, initial_network
from simulation.baselines import joined, site_folders
from simulation.benchmark.echo import round_starts_s
from simulation.benchmark.engine import HERE, MOST_CLIENTS, OURS, PEERS, installed, ran
from simulation.benchmark.peers.measured import FINAL, INITIAL, arrays_in
from simulation.benchmark.peers.work import (
    NETWORK,
    SETTINGS,
    client_file,
    put_weights,
    step_name,
    weights_of,
)
from simulation.benchmark.table import Row, begin_with_environment, run_benchmark, told_row
from simulation.run import Simulation, reopened

ROUNDS = 5
LIMIT_S = 300.0
"""Of a framework's process."""
BARE = "bare"
TURNS = 3
ONCE = ("nvflare",)
"""Five rounds of theirs take minutes."""


@dataclass(frozen=True, kw_only=True)
class Load:
    """A federated training that every framework does."""

    name: str
    hospitals: int
    overrides: tuple[str, ...]


PNEUMONIA = ("experiment=pneumonia", "model=cnn", "data.augment=none", "training.lr=0.1")
HIPPOCAMPUS = ("experiment=hippocampus", "training.lr=0.1")
LOADS = (
    Load(
        name="pneumonia",
        hospitals=8,
        overrides=(*PNEUMONIA, "training.batch_size=16", "training.local_steps=20"),
    ),
    Load(
        name="pneumonia",
        hospitals=100,
        overrides=(*PNEUMONIA, "training.batch_size=8", "training.local_steps=4"),
    ),
    Load(
        name="hippocampus",
        hospitals=8,
        overrides=(*HIPPOCAMPUS, "training.batch_size=4", "training.local_steps=4"),
    ),
    Load(
        name="hippocampus",
        hospitals=100,
        overrides=(
            *HIPPOCAMPUS,
            "training.batch_size=2",
            "training.local_steps=1",
            # Of its 260 patients each hospital has one to test.
            "++simulation.partition.shared_fraction=0.4",
            "++simulation.partition.min_patients_per_site=1",
        ),
    ),
)
SAME = (
    "training.optimizer=sgd",
    "task.loss={name: cross_entropy}",
    "strategy.weight_by=uniform",
    "++simulation.partition.by=equal",
    f"rounds={ROUNDS}",
    f"evaluate_every={ROUNDS}",
)
"""What the peers' shared work is, said in our settings."""
COLUMNS = ("round_s", "to_bare", "low", "high", "all_s", "start_s", "score", "apart")
Told = Mapping[str, Any]
"""What a process tells of its rounds."""


def main() -> None:
    """Measure every framework on every load and print the rows."""
    begin_with_environment()
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    options, others = parser.parse_known_args()
    about = "the same federated training: seconds a round"
    run_benchmark("equal_work", about, lambda quick: rows_of(options.data, quick), others)


def rows_of(data: Path, quick: bool) -> list[Row]:
    """Return one row a framework and load."""
    if not data.is_dir():
        why = f"the data sets are not at {data}; give their folder with --data"
        return [empty_row("equal_work", why)]
    rows: list[Row] = []
    for load in LOADS[:1] if quick else LOADS:
        # Frameworks read their files by absolute paths, from folders of their own.
        with tempfile.TemporaryDirectory(prefix="wardround-work-") as name:
            turns = 1 if quick else TURNS
            found = _rows_or_why_not(Path(name).resolve(), load, data.resolve(), turns)
        rows += [told_row(row) for row in found]
    return rows


def _rows_or_why_not(folder: Path, load: Load, data: Path, turns: int) -> list[Row]:
    try:
        return rows_of_load(folder, load, data, turns)
    except RuntimeError as error:
        # The other loads are measured all the same.
        return [empty_row(f"{BARE}@{load.name}x{load.hospitals}", str(error))]


def rows_of_load(folder: Path, load: Load, data: Path, turns: int) -> list[Row]:
    """Return one row a framework, the bare loop's first. folder: empty, for all that is written."""
    told = {name: [our_result(load, data, folder / name, of)] for name, of in OURS.items()}
    run = reopened(folder / next(iter(OURS)))
    initial, work, shapes = initial_network(run.study), folder / "work", folder / "shapes.json"
    held_out = write_work(run, work)
    shapes.write_text(json.dumps([list(weights.shape) for weights in initial.parameters()]))
    finals = {name: [a.numpy() for a in _in_order(folder / name, initial)] for name in OURS}
    why_not: dict[str, str] = {}
    for turn in range(turns):
        for name, engine in OURS.items() if turn else ():
            told[name].append(our_result(load, data, folder / f"{name}-{turn}", engine))
        for framework in (BARE, *PEERS):
            if framework in why_not or (turn and framework in ONCE):
                continue
            found = result_of(framework, load, work, shapes)
            if not isinstance(found, str):
                told.setdefault(framework, []).append(found)
                finals.setdefault(framework, arrays_in(work / FINAL))
                (work / FINAL).unlink()
            elif framework == BARE:
                raise RuntimeError(f"the bare loop is what all is measured by, and it {found}")
            else:
                why_not[framework] = f"turn {turn + 1}: {found}"
    rows: list[Row] = []
    for framework in (BARE, *OURS, *PEERS):
        name, why = f"{framework}@{load.name}x{load.hospitals}", why_not.get(framework, "")
        if framework not in told:
            rows.append(empty_row(name, why))
            continue
        score = score_of(run.study, finals[framework], held_out)
        apart = distance(finals[framework], finals[BARE])
        row = row_of(name, told[framework], told[BARE], score, apart)
        rows.append({**row, "why_not": why})
    return rows


def our_result(load: Load, data: Path, folder: Path, engine: str) -> dict[str, Any]:
    """Train in wardround's simulation on an engine; return what the peers' scripts tell.

    Raises:
        RuntimeError: the run did not complete.
    """
    asked = [*load.overrides, *SAME, f"++simulation.partition.sites={load.hospitals}"]
    asked += [f"data.root={data}", f"run.dir={folder}", f"simulation.engine={engine}"]
    began_s = time.time()
    command = [sys.executable, "-m", "simulation.cli", *asked]
    code = subprocess.run(command, check=False, stdout=sys.stderr).returncode
    if code:
        raise RuntimeError(f"our run ended with exit code {code}, so there is nothing to measure")
    starts_s = round_starts_s(folder / EVENTS)
    return {
        "round_ms": [1000 * (later - start) for start, later in pairwise(starts_s)],
        "start_s": starts_s[1] - began_s,
    }


def result_of(framework: str, load: Load, work: Path, shapes: Path) -> dict[str, Any] | str:
    """Return what a script told of the work, or why there is nothing."""
    python: Path | str = Path(sys.executable)
    if framework != BARE:
        most = MOST_CLIENTS.get(framework, load.hospitals)
        if load.hospitals > most:
            return f"takes {most} clients at most"
        python = installed(framework)
    if isinstance(python, str):
        return python
    script = str(HERE / "peers" / f"run_{framework}.py")
    command = [str(python), script, "--shapes", str(shapes), "--work", str(work)]
    return ran(command, load.hospitals, ROUNDS, LIMIT_S)


def write_work(run: Simulation, folder: Path) -> Samples:
    """Write what the clients of a finished run did, for the peers; return who is held out.

    The steps are those that PlainGradient drew at each site in each round.
    """
    folder.mkdir()
    study, held_out = run.study, []
    for place, site_folder in enumerate(site_folders(run)):
        site = trainer_at(site_folder / "site.yaml").site
        cohort = cohort_of(site.manifest_path, tuple(travelling(run.overrides)))
        samples = cohort.train
        arrays = {"images": samples.images.numpy(), "targets": _of_a_loss(samples)}
        for number in range(study.rounds):
            draws = generator(seed(study.seed, number + 1, site.name, "draws"))
            source = PlainGradient(nn.Identity(), study.training, len(samples.patients), draws)
            for step, chosen in enumerate(source.batches()):
                arrays[step_name(number, step)] = chosen.numpy()
        np.savez(folder / client_file(place), **arrays)  # type: ignore[arg-type]
        held_out.append(cohort.held_out)
    network = initial_network(study)
    example = torch.zeros(2, study.data.channels, *study.data.size)
    torch.jit.trace(network, example).save(str(folder / NETWORK))  # type: ignore[no-untyped-call]
    np.savez(folder / INITIAL, *weights_of(network))
    (folder / SETTINGS).write_text(json.dumps({"lr": study.training.lr}))
    return joined(held_out)


def _of_a_loss(samples: Samples) -> NDArray[np.int64]:
    """Return the targets as cross_entropy takes them: without the channel of a mask."""
    targets = samples.targets.squeeze(1) if samples.targets.dim() > 1 else samples.targets
    found: NDArray[np.int64] = targets.numpy()
    return found


def score_of(study: Study, weights: Sequence[NDArray[np.float32]], held_out: Samples) -> float:
    """Return the headline metric of a network of these weights."""
    network, task = initial_network(study), build_task(study.task)
    put_weights(network, weights)
    logits = predict(network, held_out, task, torch.device("cpu"))
    estimate = evaluate(logits, held_out, task, study.seed)[study.task.headline]
    return float("nan") if estimate.value is None else estimate.value


def distance(one: Sequence[NDArray[np.float32]], other: Sequence[NDArray[np.float32]]) -> float:
    """Return the largest difference of two models' weights over the largest weight."""
    apart = max(float(np.abs(a - b).max()) for a, b in zip(one, other, strict=True))
    return apart / max(float(np.abs(b).max()) for b in other)


def row_of(
    name: str, told: Sequence[Told], bare: Sequence[Told], score: float, apart: float
) -> Row:
    """Return the row of a framework. told, bare: by turn, its own and the bare loop's.

    One that took fewer turns is held against the bare loop's of these.
    """
    ratios = [_round_s(own) / _round_s(of) for own, of in zip(told, bare, strict=False)]
    return {
        "name": name,
        "round_s": median(map(_round_s, told)),
        "to_bare": median(ratios),
        "low": min(ratios),
        "high": max(ratios),
        "all_s": median(sum(of["round_ms"]) / 1000 for of in told),
        "start_s": median(of["start_s"] for of in told),
        "score": score,
        "apart": apart,
    }


def empty_row(name: str, why_not: str) -> Row:
    """Return the row of what was not measured."""
    return {"name": name, **dict.fromkeys(COLUMNS, "-"), "why_not": why_not}


def _round_s(told: Told) -> float:
    return float(median(told["round_ms"][1:])) / 1000


def _in_order(run_folder: Path, network: nn.Module) -> list[torch.Tensor]:
    tensors, _ = read_tensors(run_folder / MODEL)
    return [tensors[name] for name, _ in network.named_parameters()]


if __name__ == "__main__":
    main()
