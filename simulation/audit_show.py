"""An audit for a person: the command, the table, the verdict, the ROC curve."""

from dataclasses import asdict, replace
from io import BytesIO

import numpy as np
import torch
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from client.cohort import Samples
from client.site import load_site
from client.site_data import cohort_of
from common.accounting import PrivateSteps, epsilon_of
from common.config import travelling
from common.files import write_atomic, write_json
from common.schema import SettingsError
from simulation.audit import AuditConfig, Findings, audit_training, claimed_plan
from simulation.audit_bound import Floats, roc_curve
from simulation.baselines import site_folders
from simulation.run import Simulation
from simulation.sites import prepare_sites

AUDIT, PICTURE = "audit.json", "audit.png"
DELTAS = np.concatenate([np.logspace(-8, -2, 13), np.linspace(0.02, 0.98, 49)])
"""Of the claim's pairs that bound the ROC curve."""


def carry_out_audit(run: Simulation, config: AuditConfig, console: Console) -> bool:
    """Audit the largest site of the run, write audit.json and audit.png; return if the claim holds.

    Raises:
        SettingsError: the study claims no privacy, or the folder is in use.
    """
    if not run.study.privacy.private:
        raise SettingsError(
            f"privacy.mechanism={run.study.privacy.mechanism} claims nothing that could be "
            "audited; choose privacy=patient_eps8, or give privacy.mechanism=dp_sgd and a target"
        )
    if run.folder.exists() and any(run.folder.iterdir()):
        raise SettingsError(f"run.dir={run.folder} is not empty; give a new folder")
    run.folder.mkdir(parents=True, exist_ok=True)
    console.print(f"[bold]audit of {run.study.name}[/] into {run.folder}", highlight=False)
    name, samples = _largest_site(run, console)
    found = audit_training(run.study, samples, config, console)
    stands = found.stands
    verdict = "the claim stands" if stands else "THE CLAIM IS BROKEN"
    about = {"site": name, "overrides": run.overrides, "verdict": verdict, **asdict(found)}
    write_json(run.folder / AUDIT, about)
    cost = replace(claimed_plan(run.study, samples).patient_cost, steps=found.steps)
    write_atomic(run.folder / PICTURE, picture_of(found, [cost]))
    console.print(table_of(found, f"{run.study.name}, {name}"))
    console.print(
        f"[bold {'green' if stands else 'red'}]{verdict}[/]{_limits(found)}", highlight=False
    )
    console.print(
        f"all of it  {run.folder / AUDIT}\nROC curve  {run.folder / PICTURE}", highlight=False
    )
    return stands


def table_of(found: Findings, title: str) -> Table:
    """Return what was claimed and what was found, a line each."""
    table = Table(title=f"audit of the privacy claim: {title}", show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    bound, auc = found.bound, found.auc
    seen = "-" if found.noise_seen is None else f"{found.noise_seen:.3f}"
    rows = {
        "patients, steps": f"{found.patients}, {found.steps}",
        f"claimed epsilon, at delta {found.study_delta:.2g}": f"{found.study_epsilon:.2f}",
        f"claimed epsilon, at delta {found.delta:.2g}": f"{found.claimed_epsilon:.2f}",
        f"lower bound at 95 %, at delta {found.delta:.2g}": f"{bound.epsilon:.2f}",
        "most that so many canaries can show": f"{found.most_to_show:.2f}",
        "canaries, of which in": f"{found.canaries}, {found.canaries_in}",
        "guesses, of which correct": f"{bound.guesses}, {bound.correct}",
        "AUC, 95 % interval": f"{auc.value:.3f}, {auc.low:.3f} - {auc.high:.3f}",
        "noise multiplier claimed, and seen at most": f"{found.noise_multiplier:.3f}, {seen}",
    }
    for name, value in rows.items():
        table.add_row(name, value)
    return table


def picture_of(found: Findings, history: list[PrivateSteps]) -> bytes:
    """Return the ROC curve and the most that the claim allows, as PNG."""
    figure = Figure(figsize=(4.8, 4.8), layout="constrained")
    axes = figure.subplots()
    place = np.linspace(0, 1, 401)
    axes.plot([0, 1], [0, 1], color="0.6", linewidth=0.8, label="guessing")
    most = most_allowed(place, history)
    axes.plot(place, most, "--", color="0.2", linewidth=1.2, label="most that the claim allows")
    auc = found.auc
    label = f"auditor, AUC {auc.value:.3f} ({auc.low:.3f} - {auc.high:.3f})"
    axes.step(*roc_curve(found.scores, found.present), where="post", color="C0", label=label)
    axes.set(xlabel="canaries out, called in", ylabel="canaries in, called in", aspect="equal")
    axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01))
    axes.legend(loc="lower right", fontsize=8, frameon=False)
    file = BytesIO()
    figure.savefig(file, format="png", dpi=150)
    return file.getvalue()


def most_allowed(false_rate: Floats, history: list[PrivateSteps]) -> Floats:
    """Return the largest true-positive rate at each false-positive rate under the accounting.

    The least over pairs (epsilon, delta) of e^epsilon f + delta and 1 - e^-epsilon (1 - delta - f)
    (Kairouz, Oh and Viswanath, ICML 2015, Theorem 2.1).
    """
    pairs = [(epsilon_of(history, float(delta)), float(delta)) for delta in DELTAS]
    bounds = [np.ones_like(false_rate)]
    for epsilon, delta in pairs:
        with np.errstate(over="ignore", invalid="ignore"):
            bounds.append(np.nan_to_num(np.exp(epsilon) * false_rate, nan=0.0) + delta)
        bounds.append(1 - np.exp(-epsilon) * (1 - delta - false_rate))
    least: Floats = np.min(bounds, axis=0)
    return least


def _limits(found: Findings) -> str:
    if found.noise_short:
        return f": the noise measured is {found.noise_seen:.3f}, not {found.noise_multiplier:.3f}"
    if not found.stands or found.most_to_show > found.claimed_epsilon:
        return ""
    noise = "" if found.noise_seen is None else "the noise is there, but "
    return f": {noise}guesses about {found.canaries} canaries show {found.most_to_show:.1f} at most"


def _largest_site(run: Simulation, console: Console) -> tuple[str, Samples]:
    settings = run.settings
    if settings.source == "virtual":
        # The others need not be made to audit this one.
        largest = settings.virtual_hospitals()[0].name
        settings = replace(settings, hospitals={largest: settings.hospitals[largest]})
    with console.status("making the site"):
        prepare_sites(run.folder, run.tree, run.study, settings, lambda _: None)
        site = load_site(site_folders(run)[0] / "site.yaml")
        torch.set_num_threads(site.threads)
        samples = cohort_of(site.manifest_path, tuple(travelling(run.overrides))).train
    if not samples.num_patients:
        raise SettingsError(f"{site.name} has no training patients; audit a study that has some")
    return site.name, samples
