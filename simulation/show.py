"""What is left of a run for a person: the table, the report, the baselines beside them."""

import hashlib
from pathlib import Path
from typing import Any

from rich.console import Console

from common.contract import LOCAL
from common.files import write_json
from common.tasks.registry import build_task
from server.evaluation.shift import cells_of, with_models
from server.progress import Progress
from server.records import summary
from server.report.reading import comparison
from server.run import MODEL, RESULT
from server.showing import BASELINES, REPORT, show_result, write_report
from simulation.baselines import baselines_of
from simulation.examples import examples_of
from simulation.run import Simulation, simulate


def carry_out(run: Simulation, with_baselines: bool, console: Console) -> str:
    """Run, write the report, print the table; return the result's status."""
    console.print(f"[bold]{run.study.name}[/] into {_shown(run.folder)}", highlight=False)
    if run.weights is not None:
        console.print(f"weights {run.weights}", highlight=False)
    result = carried_out(run, with_baselines, console)
    done = result["status"] != "failed"
    examples = examples_of(run, sorted(result["final"]["sites"])) if done else []
    write_report(run.folder, result, examples)
    show_result(console, result)
    for log in _site_logs(run.folder):
        console.print(f"a site says why in {_shown(log)}", highlight=False)
    console.print(f"result  {_shown(run.folder / RESULT)}", highlight=False)
    console.print(f"report  {_shown(run.folder / REPORT)}", highlight=False)
    if run.study.task.name == "pretraining" and done:
        console.print(_start_with(run), highlight=False, soft_wrap=True)
    return str(result["status"])


def _start_with(run: Simulation) -> str:
    """Return how a later study begins with the weights of a pre-training."""
    file = f"{run.study.name}.safetensors"
    digest = hashlib.sha256((run.folder / MODEL).read_bytes()).hexdigest()
    return (
        f"to begin with: copy {_shown(run.folder / MODEL)} as {file} into every place's folder of "
        f"weights, and set model.start={{file: {file}, sha256: {digest}}}"
    )


def carried_out(run: Simulation, with_baselines: bool, console: Console) -> dict[str, Any]:
    """Run, or take what was run, and return the result with the models that are asked for."""
    result = simulate(run, Progress(console))
    wanted = with_baselines or comparison(result) is not None
    if wanted and result["status"] != "failed" and "baselines" not in result:
        _add_baselines(run, result, console)
        write_json(run.folder / RESULT, result)
    return result


def _add_baselines(run: Simulation, result: dict[str, Any], console: Console) -> None:
    found = baselines_of(run, sorted(result["sites"]), console)
    metrics = build_task(run.study.task).metrics
    result["baselines"] = {kind: summary(found[kind], metrics) for kind in BASELINES}
    shift = comparison(result)
    if shift is not None:
        sites, name = shift["benefit"], shift["metric"]
        rows = {m: cells_of(of, sites, name) for m, of in found.items() if m != LOCAL}
        result["shift"] = with_models(shift, rows, metrics[name])


def _shown(path: Path) -> str:
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)


def _site_logs(folder: Path) -> list[Path]:
    logs = sorted(folder.glob("sites/*/site.log"))
    return [log for log in logs if " ERROR " in log.read_text()]
