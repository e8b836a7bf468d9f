"""The verb uncertainty: how far a run's answers may be believed, by several ways to ask.

The federated model as it is, with a temperature, with drop-out left on, and the ensemble of the
sites' own models. Every figure comes from sums that add up over the sites.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd

from client.cohort import Cohort, Samples
from client.evaluation import BATCH, patient_rows, predict
from common.files import read_json, write_json
from common.schema import SettingsError
from common.seeding import seed
from common.study import Study
from common.tasks.classification import ClassificationConfig
from common.tasks.config import TaskConfig
from common.tasks.ranking import expected_calibration_error
from common.tasks.registry import build_task
from common.tasks.task import Sums, Task, with_mirrored
from common.tasks.tempered import best_temperature, metric_of, tempered, told_at
from common.tasks.uncertainty import (
    Curve,
    area_under_risk,
    curve_of,
    risk_at,
    risks_of,
    unsureness,
)
from server.run import RESULT
from simulation.baselines import cohorts_of, finished_network, own_models_of
from simulation.run import reopened

FILE, PICTURE = "uncertainty.json", "uncertainty.png"
COVERAGE = 0.8
SHOWN = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1)
"""Coverages of the printed curve."""
PASSES = 20
"""With drop-out left on (Gal and Ghahramani, ICML 2016)."""
TEMPERATURES = (0.5, 0.7, 0.85, 1.0, 1.2, 1.5, 2.0, 3.0, 4.0)
CPU = torch.device("cpu")
TASKS = ("classification", "segmentation")
Ask = Callable[[Samples], Tensor]
"""Samples -> probabilities [N, K, ...]."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One way to ask."""

    way: str
    headline: float
    ece: float | None
    """None of a segmentation."""
    risk: float
    """Mean over all held-out: the share of wrong answers, or 1 - Dice of a patient."""
    risk_at_80: float
    """Of the 80 % that are the surest."""
    area: float
    """Mean risk over all coverages."""
    curve: Sequence[float]
    """Risk at 1 %, 2 %, ... 100 % coverage."""


def show_uncertainty(folder: Path, console: Console) -> None:
    """Print the table of a finished run and write it into its folder.

    Raises:
        SettingsError: the run is not finished, or its task has no classes to be unsure between, or
            what answers is not one model for all sites.
    """
    run = reopened(folder)
    study = run.study
    if study.task.name not in TASKS:
        raise SettingsError(
            f"task.name={study.task.name}: entropies are between classes; give a run of one of: "
            f"{', '.join(TASKS)}"
        )
    if study.task.choosing_share:
        raise SettingsError(
            f"task.threshold_share={study.task.choosing_share:g} lets each site answer by a "
            "threshold of its own, and entropy says nothing of a threshold; give a run without"
        )
    network = finished_network(run)
    task = build_task(study.task)
    all_sites = cohorts_of(run, sorted(read_json(run.folder / RESULT)["sites"]))
    cohorts = {site: c for site, c in all_sites.items() if c.held_out.num_patients}
    if not cohorts:
        raise SettingsError(f"no site of {folder} has held-out patients to ask of; give another")
    own = list(own_models_of(run, all_sites, console).values())
    ways: dict[str, Ask] = {"federated": lambda samples: predict(network, samples, task, CPU)}
    if study.model.dropout:
        ways["drop-out left on"] = lambda samples: dropped(network, samples, study, task)
    ways["ensemble of the sites"] = lambda samples: torch.stack(
        [predict(model, samples, task, CPU) for model in own]
    ).mean(0)
    said = {
        way: {site: ask(c.held_out) for site, c in cohorts.items()} for way, ask in ways.items()
    }
    temperature = None
    if study.task.name == "classification":
        temperature, said["federated, with a temperature"] = with_temperature(
            said["federated"], cohorts, task
        )
    rows = [row_of(way, of, cohorts, task) for way, of in said.items()]
    found = {"coverage": COVERAGE, "temperature": temperature, "rows": [vars(row) for row in rows]}
    write_json(run.folder / FILE, found)
    picture_of(study, rows).savefig(run.folder / PICTURE, dpi=120)
    console.print(table_of(study, rows))
    console.print(curves_of(study, rows))
    if temperature is not None:
        console.print(f"best temperature for all held-out patients: {temperature:g}")
    for what, file in (("picture", PICTURE), ("result ", FILE)):
        console.print(f"{what} {run.folder / file}", highlight=False, soft_wrap=True)


def dropped(network: nn.Module, samples: Samples, study: Study, task: Task) -> Tensor:
    """Return the mean of PASSES predictions, each with another draw of drop-out."""
    network.eval()
    for module in network.modules():
        if isinstance(module, _DropoutNd):
            module.train()
    passes = []

    def ask(images: Tensor) -> Tensor:
        return task.activate(network(images))

    with torch.random.fork_rng(devices=[]), torch.inference_mode():
        torch.default_generator.manual_seed(seed(study.seed, "drop-out left on"))
        for _ in range(PASSES):
            parts = torch.split(samples.images, BATCH)
            batches = [with_mirrored(ask(part), ask, part, task.config) for part in parts]
            passes.append(torch.cat(batches))
    return torch.stack(passes).mean(0)


def with_temperature(
    said: Mapping[str, Tensor], cohorts: Mapping[str, Cohort], task: Task
) -> tuple[float, dict[str, Tensor]]:
    """Return the best temperature for all patients, and the answers at one.

    Each half of a site's patients has the temperature that is best for the other half: on the
    patients who chose it a temperature would flatter itself.
    """
    config = _without_temperatures(task.config)
    already = config.temperature or 1.0
    at = told_at(build_task(config), TEMPERATURES, already)
    rows = {site: patient_rows(said[site], c.held_out, at) for site, c in cohorts.items()}

    def chosen(kept: Callable[[int], bool]) -> float:
        told = {}
        for site, of in rows.items():
            some = [row for place, row in enumerate(of.values()) if kept(place)]
            if some:
                means = at.score(_added(some))
                told[site] = {metric_of(t): (means[metric_of(t)], len(some)) for t in TEMPERATURES}
        best = best_temperature(told, TEMPERATURES)
        return already if best is None else best[0]

    halves = [chosen(lambda place, half=half: place % 2 == half) for half in (1, 0)]  # type: ignore[misc]
    made = {}
    for site, cohort in cohorts.items():
        place = {patient: number for number, patient in enumerate(rows[site])}
        each = [halves[place[patient] % 2] for patient in cohort.held_out.patients]
        cooled = [tempered(p, t / already) for p, t in zip(said[site], each, strict=True)]
        made[site] = torch.stack(cooled)
    return chosen(lambda _: True), made


def _without_temperatures(config: TaskConfig) -> ClassificationConfig:
    assert isinstance(config, ClassificationConfig)
    # Those that the study tells of would be found beside these.
    return replace(config, temperatures=None)


def row_of(way: str, said: Mapping[str, Tensor], cohorts: Mapping[str, Cohort], task: Task) -> Row:
    """Return the figures of all sites together; the headline is the mean over the sites."""
    headlines, curves, calibrations = [], [], []
    for site, cohort in cohorts.items():
        rows = patient_rows(said[site], cohort.held_out, task)
        headlines.append(task.score(_added(list(rows.values())))[task.config.headline])
        curves.append(_curve(said[site], cohort.held_out, rows, task))
        calibrations += [row["calibration"] for row in rows.values() if "calibration" in row]
    curve = np.sum(curves, axis=0)
    total = np.sum(calibrations, axis=0) if calibrations else None
    return Row(
        way=way,
        headline=float(np.nanmean(headlines)),
        ece=None if total is None else expected_calibration_error(total),
        risk=risk_at(curve, 1.0),
        risk_at_80=risk_at(curve, COVERAGE),
        area=area_under_risk(curve),
        curve=risks_of(curve),
    )


def _curve(said: Tensor, samples: Samples, rows: Mapping[str, Sums], task: Task) -> Curve:
    """Return the curve of a site: of a classification an answer an image, else one a patient."""
    if not task.config.dense:
        wrong = said.argmax(1) != samples.targets
        each = zip(said, wrong.tolist(), strict=True)
        return _sum([curve_of(unsureness(p), float(w)) for p, w in each])
    curves = []
    for patient, indices in samples.patient_indices().items():
        risk = 1 - float(np.mean(rows[patient]["dice"]))
        whole = said[indices].movedim(1, 0)
        curves.append(curve_of(unsureness(whole), risk))
    return _sum(curves)


def _sum(curves: Sequence[Curve]) -> Curve:
    return np.asarray(np.sum(curves, axis=0), dtype=np.float64)


def _added(rows: Sequence[Sums]) -> Sums:
    return {name: np.sum([row[name] for row in rows], axis=0) for name in rows[0]}


def table_of(study: Study, rows: Sequence[Row]) -> Table:
    """Return the ways to ask as a table."""
    table = Table(title=f"{study.name}: how far its answers may be believed")
    columns = (study.task.headline, "ece", "risk", "at 80 % coverage", "less by", "area")
    table.add_column("model", no_wrap=True)
    for column in columns:
        table.add_column(column, justify="right", no_wrap=True)
    for row in rows:
        less = 1 - row.risk_at_80 / row.risk if row.risk else 0.0
        cells = (row.headline, row.ece, row.risk, row.risk_at_80)
        told = ["-" if cell is None else f"{cell:.3f}" for cell in cells]
        table.add_row(row.way, *told, f"{less:.0%}", f"{row.area:.3f}")
    return table


def curves_of(study: Study, rows: Sequence[Row]) -> Table:
    """Return the risk over coverage as a table: what a person would have to look at, and for what.

    The share that is not covered, the least sure answers, goes to a person.
    """
    table = Table(title=f"{study.name}: risk of the answers that are given, by coverage")
    table.add_column("model", no_wrap=True)
    for coverage in SHOWN:
        table.add_column(f"{coverage:.0%}", justify="right", no_wrap=True)
    for row in rows:
        each = (row.curve[round(coverage * len(row.curve)) - 1] for coverage in SHOWN)
        table.add_row(row.way, *(f"{risk:.3f}" for risk in each))
    return table


def picture_of(study: Study, rows: Sequence[Row]) -> Figure:
    """Return the curves; how low one lies at the left says what the surest answers are worth."""
    figure = Figure(figsize=(6.0, 3.6), layout="constrained")
    axes = figure.subplots()
    for row in rows:
        steps = len(row.curve)
        coverages = [100 * (step + 1) / steps for step in range(steps)]
        axes.plot(coverages, row.curve, label=row.way)
    axes.set_xlabel("coverage: share of the answers that are given, the surest first (%)")
    axes.set_ylabel("1 - Dice" if study.task.dense else "share of wrong answers")
    axes.set_title(f"{study.name}: selective prediction, held-out patients", fontsize="medium")
    axes.set_xlim(0, 100)
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    return figure
