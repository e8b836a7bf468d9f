"""What the federation is measured against: pooled data, each hospital alone, and their ensemble.

All are trained without privacy, by the same local loop and with the same network and batch size as
the federation. A local model takes the steps of its site, pooled those of all sites together.
"""

from collections.abc import Mapping, Sequence
from concurrent.futures import as_completed
from dataclasses import replace
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor, nn

from client.alone import train_alone
from client.cohort import Cohort, Samples
from client.evaluation import chosen_by, evaluate, predict
from client.own_models import OWN_MODEL, PERSONAL_MODEL
from client.site import load_site
from client.site_data import cohort_of
from client.trainer import trainer_at
from common.config import travelling
from common.contract import LOCAL, PERSONAL, Estimate
from common.models.layers import local_names
from common.schema import SettingsError
from common.seeding import seed
from common.state import state_of
from common.study import Study
from common.tasks.registry import build_task
from common.tensor_files import read_tensors
from server.evaluation.shift import ENSEMBLE, POOLED
from server.records import Estimates
from server.run import MODEL, initial_network
from server.showing import BASELINES
from simulation.environment import worker_processes
from simulation.run import Simulation

CPU = torch.device("cpu")


def baselines_of(run: Simulation, sites: Sequence[str], console: Console) -> dict[str, Estimates]:
    """Return the estimates by model and site: pooled, ensemble, local, local/NAME, personal/NAME.

    sites: those that took part in the federation; the others' data could not be used there either.
    `local` is each site's own model at home, local/NAME the one of NAME everywhere, and
    personal/NAME the federated one as NAME made it its own, where the study asked for that.
    """
    study = run.study
    cohorts = cohorts_of(run, sites)
    models = _models(run, cohorts, console)
    pooled = models.pop(POOLED)
    everywhere = {f"{LOCAL}/{name}": model for name, model in models.items()}
    everywhere |= {f"{PERSONAL}/{name}": model for name, model in personal_models_of(run).items()}
    found: dict[str, Estimates] = {kind: {} for kind in BASELINES}
    found |= {name: {} for name in everywhere}
    for site, cohort in cohorts.items():
        if not cohort.held_out.num_patients:
            continue
        found[POOLED][site] = _estimates(study, cohort, [pooled])
        found[ENSEMBLE][site] = _estimates(study, cohort, list(models.values()))
        for name, model in everywhere.items():
            found[name][site] = _estimates(study, cohort, [model])
        if site in models:
            found[LOCAL][site] = found[f"{LOCAL}/{site}"][site]
    return found


def finished_network(run: Simulation) -> nn.Module:
    """Return a finished run's model.

    Raises:
        SettingsError: the run is not finished, or parts of its model stayed at the sites.
    """
    if not (run.folder / MODEL).is_file():
        raise SettingsError(
            f"{run.folder} has no {MODEL}; finish the run: wardround-sim resume {run.folder}"
        )
    network = initial_network(run.study)
    stayed = local_names(network, run.study.model)
    if stayed:
        raise SettingsError(
            f"{min(stayed)} and {len(stayed) - 1} more tensors of the model stayed at the sites "
            f"(model.local, or model.batch_norm_policy=local), and {MODEL} has none of them; give "
            "a run whose whole model travels"
        )
    network.load_state_dict({**network.state_dict(), **read_tensors(run.folder / MODEL)[0]})
    return network


def _models(
    run: Simulation, cohorts: Mapping[str, Cohort], console: Console
) -> dict[str, nn.Module]:
    """Return the pooled model and each site's own, trained here or by its trainer already."""
    trained = trained_at(run, cohorts)
    return own_models_of(run, cohorts, console, {POOLED: joined(list(trained.values()))})


def own_models_of(
    run: Simulation,
    cohorts: Mapping[str, Cohort],
    console: Console,
    beside: Mapping[str, Samples] | None = None,
) -> dict[str, nn.Module]:
    """Return each site's own model, trained here or by its trainer already.

    beside: what else is trained with them, by name; it comes first.
    """
    trained, more = trained_at(run, cohorts), dict(beside or {})
    asked = run.study.evaluation
    known = _kept_models(run, OWN_MODEL) if asked is not None and asked.own_model else {}
    kept = {site: known[site] for site in trained if site in known}
    jobs = more | {site: samples for site, samples in trained.items() if site not in kept}
    names = [*more, *(f"{site}'s own" for site in jobs if site not in more)]
    states = dict(kept)
    if jobs:
        console.print(f"beside it are trained: {', '.join(names)}", highlight=False)
        states |= _all_trained(run.study, jobs, len(trained), run.settings.actors, console)
    models = {}
    for what in (*more, *trained):
        models[what] = initial_network(run.study)
        models[what].load_state_dict(states[what])
    return models


def trained_at(run: Simulation, cohorts: Mapping[str, Cohort]) -> dict[str, Samples]:
    """Return the training samples by site: not of sites without, nor of those that only test."""
    tested = run.study.strategy.tested or []
    return {s: c.train for s, c in cohorts.items() if c.train.num_patients and s not in tested}


def personal_models_of(run: Simulation) -> dict[str, nn.Module]:
    """Return the federated model as each site made it its own, of those that did, by site."""
    asked = run.study.evaluation
    if asked is None or not asked.personal_rounds:
        return {}
    models = {}
    for name, state in sorted(_kept_models(run, PERSONAL_MODEL).items()):
        models[name] = initial_network(run.study)
        models[name].load_state_dict(state)
    return models


def _kept_models(run: Simulation, file: str) -> dict[str, dict[str, Tensor]]:
    sites = [load_site(folder / "site.yaml") for folder in site_folders(run)]
    paths = {site.name: site.state_path / file for site in sites}
    return {name: read_tensors(path)[0] for name, path in paths.items() if path.exists()}


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


def cohorts_of(run: Simulation, names: Sequence[str]) -> dict[str, Cohort]:
    """Return the data of the run's sites that are named, by site."""
    overrides = tuple(travelling(run.overrides))
    sites = [trainer_at(folder / "site.yaml").site for folder in site_folders(run)]
    return {s.name: cohort_of(s.manifest_path, overrides) for s in sites if s.name in names}


def _all_trained(
    study: Study, jobs: Mapping[str, Samples], sites: int, processes: int, console: Console
) -> dict[str, dict[str, Tensor]]:
    # A process a model, as the hospitals have.
    with worker_processes(processes) as pool:
        studies = dict.fromkeys(jobs, study) | {POOLED: _of_all_sites(study, sites)}
        futures = {pool.submit(_trained, studies[what], jobs[what], what): what for what in jobs}
        told = track(as_completed(futures), "baselines", len(jobs), console=console, transient=True)
        return {futures[future]: future.result() for future in told}


def _of_all_sites(study: Study, sites: int) -> Study:
    """Return the study with the steps of all its sites, where steps are given and not passes."""
    training = study.training
    if training.local_steps is None:
        return study
    return replace(study, training=replace(training, local_steps=training.local_steps * sites))


def _trained(study: Study, samples: Samples, what: str) -> dict[str, Tensor]:
    torch.set_num_threads(1)
    model = initial_network(study)
    train_alone(model, study, samples, what, range(1, study.rounds + 1), CPU)
    return state_of(model)


def _estimates(study: Study, cohort: Cohort, models: Sequence[nn.Module]) -> dict[str, Estimate]:
    """Return the metrics of the models' mean prediction, by the threshold chosen for it."""
    task, at = build_task(study.task), seed(study.seed, "baselines", "bootstrap")

    def together(samples: Samples) -> Tensor:
        return predict(nn.ModuleList(models), samples, task, CPU)

    decided = chosen_by(lambda: together(cohort.choosing), cohort.choosing, task)
    return evaluate(together(cohort.held_out), cohort.held_out, decided, at)
