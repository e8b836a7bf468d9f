"""An experiment without each site in turn (server/evaluation/left_out.py says what that tells)."""

from typing import Any

from rich.console import Console

from client.evaluation import bootstrap_gain, chosen_by, patient_rows, predict
from common.contract import Estimate
from common.files import write_json
from common.models.registry import local_names
from common.seeding import seed
from common.tasks.registry import build_task
from common.tasks.task import Sums
from server.evaluation.left_out import row_of, summary_of, table_of, with_left_out
from server.progress import Progress
from server.report.apart import left_out_sentence
from server.run import RESULT, initial_network
from server.showing import REPORT, write_report
from simulation.baselines import CPU, cohorts_of, finished_network
from simulation.examples import examples_of
from simulation.run import Simulation, composed, simulate
from simulation.sites import share_hospitals

FILE, ALL = "leave_one_out.json", "all"


def leave_one_out(run: Simulation, console: Console) -> str:
    """Run with all sites and without each, a folder each; return the worst status.

    Writes leave_one_out.json into the run's folder, and the same into the `shift.left_out` of the
    run with all sites, whose report is written anew. What is done is not run again.
    """
    console.print(f"[bold]{run.study.name}[/], with all sites", highlight=False)
    whole_run = _part(run, ALL, [])
    whole = simulate(whole_run, Progress(console))
    name = whole["headline"]
    rows, without = [], {}
    for site, about in whole["sites"].items():
        if not about["patients_held_out"] or not about["patients_train"]:
            continue
        console.print(f"[bold]{run.study.name}[/], without {site}", highlight=False)
        part_run = _part(run, f"without-{site}", [f"strategy.tested=[{site}]"])
        part = simulate(part_run, Progress(console))
        both = "failed" not in (whole["status"], part["status"])
        gain = gain_at(whole_run, part_run, site) if both else None
        without[site] = part
        rows.append(row_of(site, whole, part, gain))
    better = whole["metrics"][name]["higher_is_better"]
    found = {"experiment": run.study.name, "metric": name, "rows": rows}
    write_json(run.folder / FILE, {**found, **summary_of(rows, better)})
    console.print(table_of(rows, better, f"{run.study.name}: {name} of a model without the site"))
    if whole["status"] != "failed":
        told = with_left_out(whole, rows, without)
        if sentence := left_out_sentence(told):
            console.print(sentence, highlight=False, soft_wrap=True)
        _into_result(whole_run, whole, told)
        console.print(f"report  {whole_run.folder / REPORT}", highlight=False)
    console.print(f"result  {run.folder / FILE}", highlight=False)
    statuses = [whole["status"], *(row["status"] for row in rows)]
    return next((s for s in ("failed", "partial") if s in statuses), "completed")


def _part(run: Simulation, name: str, asked: list[str]) -> Simulation:
    folder = run.folder / name
    if name != ALL:
        share_hospitals(folder, run.folder / ALL)
    return composed(folder, [*run.overrides, *asked])


def gain_at(whole: Simulation, without: Simulation, site: str) -> Estimate | None:
    """Return the headline at a site minus the same without it, paired by patient.

    None where a part of the model stays at the sites, and the rest cannot be asked.
    """
    if local_names(initial_network(whole.study), whole.study.model):
        return None
    inside, outside = _rows(whole, site), _rows(without, site)
    if list(inside) != list(outside):
        return None
    task, at = build_task(whole.study.task), seed(whole.study.seed, site, "left out", "bootstrap")
    ours, others = list(inside.values()), list(outside.values())
    return bootstrap_gain(ours, others, task, at)[whole.study.task.headline]


def _rows(run: Simulation, site: str) -> dict[str, Sums]:
    """Return what the final model of a run makes of each held-out patient of a site."""
    network, task = finished_network(run), build_task(run.study.task)
    cohort = cohorts_of(run, [site])[site]
    choosing, held_out = cohort.choosing, cohort.held_out
    decided = chosen_by(lambda: predict(network, choosing, task, CPU), choosing, task)
    return patient_rows(predict(network, held_out, task, CPU), held_out, decided)


def _into_result(run: Simulation, before: dict[str, Any], result: dict[str, Any]) -> None:
    """Write the result with all sites, where it has changed, and its report."""
    if result != before:
        write_json(run.folder / RESULT, result)
    write_report(run.folder, result, examples_of(run, sorted(result["final"]["sites"])))
