"""--profile: where the time of a round goes at the largest hospital.

One round is trained under PyTorch's profiler, in this process, by the trainer that a real site
runs; no server takes part.
"""

import time
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table
from torch.profiler import ProfilerActivity, profile

from client.trainer import trainer_at
from client.training import AUGMENT, FORWARD, GRADIENT, STEP
from common.config import travelling
from common.contract import RefusalError, Request, TrainReply
from common.schema import SettingsError
from common.state import arrays_of
from server.checkpoint import CHECKPOINT
from server.progress import Progress
from server.run import RESULT, initial_network, reference_to, shared_state
from simulation.run import Simulation, make_hospitals

TRACE = "trace.json"
OPERATORS = 12
"""Rows of the table of operators."""


def show_profile(run: Simulation, console: Console) -> None:
    """Make the hospitals, train one round at the largest, and print where the time went.

    Raises:
        SettingsError: another process works in the folder, it holds a run that has begun or is
            another, or the hospital does not train.
    """
    if any((run.folder / name).exists() for name in (CHECKPOINT, RESULT)):
        raise SettingsError(
            f"{run.folder} holds a run, and a profile would train its first round again; give "
            "another run.dir"
        )
    path = make_hospitals(run, Progress(console))[0]
    trainer, request = trainer_at(path), _request(run)
    weights = arrays_of(shared_state(run.study, initial_network(run.study)))
    activities = [ProfilerActivity.CPU]
    on_gpu = trainer.site.device.startswith("cuda")
    if on_gpu:
        activities.append(ProfilerActivity.CUDA)
    try:
        began = time.monotonic()
        trainer.describe(request)
        read_s = time.monotonic() - began
        with profile(activities=activities, acc_events=True) as profiled:
            began = time.monotonic()
            body = trainer.train(request, weights).body
            round_s = time.monotonic() - began
    except RefusalError as error:
        raise SettingsError(f"{trainer.site.name} does not train: {error.code}: {error}") from error
    assert isinstance(body, TrainReply)
    spans_s = _spans_s(profiled.key_averages())
    console.print(_phases(trainer.site.name, phases_s(spans_s, round_s), body.steps))
    if on_gpu:
        console.print("The parts are the processor's time, the operators below the GPU's.")
    console.print(_operators(profiled.key_averages(), on_gpu))
    profiled.export_chrome_trace(str(run.folder / TRACE))
    console.print(
        f"images read in {read_s:.1f} s; trace {run.folder / TRACE} (chrome://tracing)",
        highlight=False,
        soft_wrap=True,
    )


def phases_s(spans_s: Mapping[str, float], round_s: float) -> dict[str, float]:
    """Return the seconds of each part of a round; together they are round_s.

    spans_s: of each part of a step, the gradient's with those of augment and forward in it.
    """
    augment, forward = spans_s.get(AUGMENT, 0.0), spans_s.get(FORWARD, 0.0)
    gradient, step = spans_s.get(GRADIENT, 0.0), spans_s.get(STEP, 0.0)
    return {
        "random changes of the images": augment,
        "network and loss": forward,
        "gradient, and its privacy": gradient - augment - forward,
        "optimiser's step": step,
        "all else: evaluation, ledger, update": round_s - gradient - step,
    }


def _request(run: Simulation) -> Request:
    study = reference_to(run.study, travelling(run.overrides))
    return Request(study=study, round=1, evaluate=True)


def _spans_s(averages: Any) -> dict[str, float]:  # noqa: ANN401 - torch's list of events has no public type
    names = (AUGMENT, FORWARD, GRADIENT, STEP)
    return {a.key: a.cpu_time_total / 1e6 for a in averages if a.key in names}


def _phases(site: str, phases: Mapping[str, float], steps: int) -> Table:
    whole_s = sum(phases.values())
    table = Table(title=f"a round at {site}: {steps} steps, {whole_s:.1f} s")
    table.add_column("part")
    for column in ("s", "share", "ms a step"):
        table.add_column(column, justify="right")
    for name, seconds in phases.items():
        share, of_step = seconds / whole_s, 1000 * seconds / steps
        table.add_row(name, f"{seconds:.2f}", f"{share:.0%}", f"{of_step:.1f}")
    return table


def _operators(averages: Any, on_gpu: bool) -> Table:  # noqa: ANN401 - as above
    device = "self_device_time_total" if on_gpu else "self_cpu_time_total"
    own = {a.key: (getattr(a, device) / 1e6, a.count) for a in averages if a.key.startswith("aten")}
    table = Table(title="operators by their own time")
    table.add_column("operator")
    for column in ("s", "calls"):
        table.add_column(column, justify="right")
    for name in sorted(own, key=lambda key: -own[key][0])[:OPERATORS]:
        seconds, calls = own[name]
        table.add_row(name.removeprefix("aten::"), f"{seconds:.2f}", str(calls))
    return table
