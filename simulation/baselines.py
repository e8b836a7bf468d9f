"""What the federation is measured against: pooled data, each hospital alone, and their ensemble.

All are trained without privacy, by the same local loop and with the same network and batch size as
the federation. A local model takes the steps of its site, pooled those of all sites together.
"""

from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor, nn

from client.cohort import Cohort, Samples
from client.evaluation import evaluate, predict
from client.trainer import trainer_at
from client.training import PlainGradient, build_optimizer, learning_rate, train_round
from client.work import cohort_of
from common.config import travelling
from common.contract import Estimate
from common.seeding import generator, seed
from common.state import state_of
from common.study import Study
from common.tasks.registry import build_task
from common.transforms import augment
from server.records import summary
from server.run import initial_network
from server.showing import BASELINES
from simulation.environment import stop_on_ctrl_c
from simulation.run import Simulation

POOLED = "pooled"
CPU = torch.device("cpu")


def baselines_of(run: Simulation, sites: Sequence[str], console: Console) -> dict[str, Any]:
    """Return, for pooled, local and ensemble, the same summary as the result's `final`.

    sites: those that took part in the federation; the others' data could not be used there either.
    """
    study = run.study
    cohorts = _cohorts(run, sites)
    metrics = build_task(study.task).metrics
    jobs = {POOLED: joined([c.train for c in cohorts.values()])}
    jobs |= {s: c.train for s, c in cohorts.items() if c.train.num_patients}
    models = _all_trained(study, jobs, run.settings.actors, console)
    pooled = models.pop(POOLED)
    found: dict[str, dict[str, dict[str, Estimate]]] = {kind: {} for kind in BASELINES}
    for site, cohort in cohorts.items():
        if not cohort.held_out.num_patients:
            continue
        found["pooled"][site] = _estimates(study, cohort, _probabilities(study, pooled, cohort))
        each = {name: _probabilities(study, model, cohort) for name, model in models.items()}
        together = torch.stack(list(each.values())).mean(0)
        found["ensemble"][site] = _estimates(study, cohort, together)
        if site in each:
            found["local"][site] = _estimates(study, cohort, each[site])
    return {kind: summary(estimates, metrics) for kind, estimates in found.items()}


def joined(samples: list[Samples]) -> Samples:
    """Return the samples of several sites as those of one; patients stay apart by site."""
    volumes, offset = [], 0
    for part in samples:
        volumes += [volume + offset for volume in part.volumes]
        offset = max(volumes, default=-1) + 1
    return replace(
        samples[0],
        images=torch.cat([part.images for part in samples]),
        targets=torch.cat([part.targets for part in samples]),
        patients=tuple(f"{k}/{p}" for k, part in enumerate(samples) for p in part.patients),
        volumes=tuple(volumes),
        spacing_mm=tuple(s for part in samples for s in part.spacing_mm),
    )


def site_folders(run: Simulation) -> list[Path]:
    """Return the folders of the run's sites, largest hospital first."""
    return sorted((run.folder / "sites").iterdir())


def _cohorts(run: Simulation, names: Sequence[str]) -> dict[str, Cohort]:
    overrides = tuple(travelling(run.overrides))
    sites = [trainer_at(folder / "site.yaml").site for folder in site_folders(run)]
    return {s.name: cohort_of(s.manifest_path, overrides) for s in sites if s.name in names}


def _all_trained(
    study: Study, jobs: Mapping[str, Samples], processes: int, console: Console
) -> dict[str, nn.Module]:
    # A process a model, as the hospitals have; forked ones would inherit torch's threads.
    with ProcessPoolExecutor(processes, get_context("spawn"), stop_on_ctrl_c) as pool:
        studies = dict.fromkeys(jobs, study) | {POOLED: _of_all_sites(study, len(jobs) - 1)}
        futures = {pool.submit(_trained, studies[what], jobs[what], what): what for what in jobs}
        told = track(as_completed(futures), "baselines", len(jobs), console=console, transient=True)
        states = {futures[future]: future.result() for future in told}
    models = {}
    for what in jobs:
        models[what] = initial_network(study)
        models[what].load_state_dict(states[what])
    return models


def _of_all_sites(study: Study, sites: int) -> Study:
    """Return the study with the steps of all its sites, where steps are given and not passes."""
    training = study.training
    if training.local_steps is None:
        return study
    return replace(study, training=replace(training, local_steps=training.local_steps * sites))


def _trained(study: Study, samples: Samples, what: str) -> dict[str, Tensor]:
    torch.set_num_threads(1)
    model = initial_network(study)
    optimizer = build_optimizer(study.training, model, study.training.lr)
    alone = replace(study, strategy=replace(study.strategy, proximal_mu=0.0))
    task = build_task(study.task)
    for number in range(1, study.rounds + 1):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(study.training, number, study.rounds)
        draws = generator(seed(study.seed, number, what, "draws"))
        source = PlainGradient(model, study.training, len(samples.patients), draws)
        random_part = augment(study.data, generator(seed(study.seed, number, what, "augment")))
        with torch.random.fork_rng():
            torch.manual_seed(seed(study.seed, number, what, "dropout"))
            train_round(source, optimizer, samples, task, alone, random_part, CPU)
    return state_of(model)


def _probabilities(study: Study, model: nn.Module, cohort: Cohort) -> Tensor:
    return predict(model, cohort.held_out, build_task(study.task), CPU)


def _estimates(study: Study, cohort: Cohort, probabilities: Tensor) -> dict[str, Estimate]:
    at = seed(study.seed, "baselines", "bootstrap")
    return evaluate(probabilities, cohort.held_out, build_task(study.task), at)
