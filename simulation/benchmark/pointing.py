"""Where each way of explaining points: the pointing game on phantoms, whose lesions are known.

    python -m simulation.benchmark.pointing [--json] [--quick]

An Attention U-Net learns the lesions of `virtual_mri` in the federation, without privacy, and a
vision transformer learns on the same slices whether there is one. Of each held-out patient the
slice with the largest lesion is explained. `hits` is the share of maps whose peak lies in a lesion
(Zhang et al., IJCV 2018), `chance` the share of the slice that is lesion, which a peak anywhere
would hit, and `called_out` the share of maps that are flat or as like without training (Adebayo et
al., NeurIPS 2018).
"""

import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import mean

import torch
from rich.console import Console
from torch import Tensor, nn

from client.alone import train_alone
from client.cohort import Samples
from client.examples import most_foreground
from client.explain import Asked, explained, explainers_of
from client.explanations import untrained_like
from common.config import load_study
from common.study import Study
from server.progress import Progress
from server.run import initial_network
from simulation.baselines import cohorts_of, finished_network, joined
from simulation.benchmark.table import Row, begin_with_environment, run_benchmark
from simulation.run import Simulation, composed, simulate

CPU = torch.device("cpu")
Case = tuple[Tensor, Tensor]
"""image_1CS, and where the lesion is: bool [*S]."""
PATIENTS, QUICK_PATIENTS = 20, 6
"""Of each hospital; a fifth are held out."""
FEDERATED = (
    "experiment=virtual_mri",
    "model=attention_unet",
    "privacy=none",
    "training.optimizer=adamw",
    "training.lr=3.0e-3",
    "training.batch_size=16",
    "evaluation=none",
)
TRANSFORMER = (
    "model=vit",
    "model.patch=6",
    "model.hidden=64",
    "model.mlp=128",
    "model.heads=4",
    "model.layers=4",
    "task=classification",
    "task.classes=[none,lesion]",
    "data=slices",
    "data.size=[48,48]",
    "data.augment=flip",
    "training.optimizer=adamw",
    "training.lr=1.0e-3",
    "training.batch_size=32",
)


def main() -> None:
    """Play the game and print the rows."""
    begin_with_environment()
    run_benchmark(
        "pointing", "peaks of maps in lesions of held-out phantoms", measure, sys.argv[1:]
    )


def measure(quick: bool) -> list[Row]:
    """Return a row for each network and method."""
    steps, rounds = (2, 1) if quick else (400, 8)
    with tempfile.TemporaryDirectory() as folder:
        run = _hospitals(Path(folder), QUICK_PATIENTS if quick else PATIENTS, rounds)
        simulate(run, Progress(Console(quiet=True)))
        cohorts = cohorts_of(run, list(run.settings.hospitals)).values()
        train = joined([cohort.train for cohort in cohorts])
        shown = cases_of(joined([cohort.held_out for cohort in cohorts]))
        rows = rows_of("attention_unet", finished_network(run), run.study, shown)
    study = load_study([*TRANSFORMER, f"training.local_steps={steps}", "rounds=1"])
    network = initial_network(study)
    labelled = replace(train, targets=(train.targets > 0).flatten(1).any(1).long())
    train_alone(network, study, labelled, "pointing", range(1, 2), CPU)
    return rows + rows_of("vit", network, study, shown)


def _hospitals(folder: Path, patients: int, rounds: int) -> Simulation:
    names = composed(folder, FEDERATED).settings.hospitals
    fewer = [f"simulation.hospitals.{name}.patients={patients}" for name in names]
    asked = [*FEDERATED, *fewer, f"rounds={rounds}", f"evaluate_every={rounds}"]
    return composed(folder, [*asked, "simulation.engine=inprocess"])


def cases_of(samples: Samples) -> list[Case]:
    """Return of each patient the slice with the largest lesion, of those who have one."""
    found = []
    for places in samples.patient_indices().values():
        place = places[most_foreground(samples.targets[places])]
        lesion_S = samples.targets[place, 0] > 0
        if bool(lesion_S.any()):
            found.append((samples.images[place : place + 1], lesion_S))
    return found


def rows_of(name: str, network: nn.Module, study: Study, cases: Sequence[Case]) -> list[Row]:
    """Return a row for each method that fits the network."""
    untrained = untrained_like(study)
    rows: list[Row] = []
    for method in explainers_of(network.eval()):
        found = [
            explained(method, Asked(network, image_1CS, 1), untrained, lesion_S)
            for image_1CS, lesion_S in cases
        ]
        rows.append(
            {
                "name": f"{name}, {method}",
                "cases": len(found),
                "hits": mean(bool(one.hit) for one in found),
                "chance": mean(float(lesion_S.float().mean()) for _, lesion_S in cases),
                "called_out": mean(not one.trusted for one in found),
            }
        )
    return rows


if __name__ == "__main__":
    main()
