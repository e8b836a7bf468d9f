"""Our local loop against the same training written as a bare PyTorch loop.

    python -m simulation.benchmark.local_loop [--json] [--quick]

Both loops train the same network on the same batches with the same optimiser, in turn (ours, bare,
ours, bare ...), so that a neighbour on the machine slows both. Seconds are the process's own
processor time on one thread: what a neighbour takes is not counted, and neither loop ever waits.
The process keeps the memory that a step frees, as a site's trainer does; so both loops gain by it.
On a GPU they are the time until all is done, and the bare loop has all images there from the start.
The ratio is the median over the pairs of samples per second, ours over bare; 1 means that our loop
costs nothing.
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from statistics import median

import torch
from torch import Tensor, nn

from client.cohort import Samples
from client.training import PlainGradient, build_optimizer, train_round
from common.config import load_study
from common.kept_memory import keep_freed_memory
from common.models.registry import build_model
from common.seeding import generator
from common.study import Study
from common.tasks.registry import build_task
from common.transforms import augment
from simulation.benchmark.table import (
    Row,
    begin_with_environment,
    clock_of,
    run_benchmark,
    why_no_gpu,
)

PAIRS = 5
CPU = torch.device("cpu")
GPU_STEPS = 10
"""Times as many there."""
MEASURED = ("ours_per_s", "bare_per_s", "ratio", "lowest", "highest")


@dataclass(frozen=True, kw_only=True)
class Load:
    """One row: what is trained, and for how long."""

    name: str
    overrides: tuple[str, ...]
    """Hydra overrides of the study."""
    steps: int
    """Steps of one measurement."""


LOADS = (
    Load(
        name="unet2d",
        overrides=("model=unet", "data=slices", "training.batch_size=8"),
        steps=60,
    ),
    Load(
        name="unet3d",
        overrides=("model=unet", "data=volumes", "training.batch_size=4"),
        steps=12,
    ),
    Load(
        name="cnn",
        overrides=(
            "model=cnn",
            "task=classification",
            "data=pictures",
            "data.augment=none",
            "training.batch_size=32",
        ),
        steps=60,
    ),
)


def main() -> None:
    """Measure every load and print the rows."""
    begin_with_environment()
    keep_freed_memory()
    about = "local loop, samples per second: ours, bare PyTorch, and ours over bare"
    run_benchmark("local_loop", about, lambda quick: rows_of(4 if quick else 1), sys.argv[1:])


def rows_of(shorter: int) -> list[Row]:
    """Return one row a load and device, each measured over 1/shorter of its steps on the CPU."""
    rows = [row_of(load, max(1, load.steps // shorter), CPU) for load in LOADS]
    for load in LOADS:
        steps = GPU_STEPS * load.steps // shorter
        rows.append(row_of(load, steps, torch.device("cuda"), why_no_gpu()))
    return rows


def row_of(load: Load, steps: int, device: torch.device, why_not: str = "") -> Row:
    """Return samples per second of both loops, and of the pairs' ratios the median and the ends."""
    study = load_study([*load.overrides, f"training.local_steps={steps}"])
    about: Row = {
        "name": load.name + ("" if device == CPU else " on a GPU"),
        "size": "x".join(map(str, study.data.size)),
        "batch": study.training.batch_size,
        "steps": steps,
    }
    if why_not:
        return {**about, **dict.fromkeys(MEASURED, "-"), "why_not": why_not}
    samples = made_up_samples(study, steps)
    images, targets = samples.images.to(device), samples.targets.to(device)
    there = replace(samples, images=images, targets=targets)
    for loop, given in ((our_loop, samples), (bare_loop, there)):
        seconds_of(study, loop, given, device)
    pairs = [
        (
            seconds_of(study, our_loop, samples, device),
            seconds_of(study, bare_loop, there, device),
        )
        for _ in range(PAIRS)
    ]
    count = steps * study.training.batch_size
    ratios = [bare / ours for ours, bare in pairs]
    found = (
        count / median(ours for ours, _ in pairs),
        count / median(bare for _, bare in pairs),
        median(ratios),
        min(ratios),
        max(ratios),
    )
    return {**about, **dict(zip(MEASURED, found, strict=True)), "why_not": ""}


Loop = Callable[[Study, nn.Module, torch.optim.Optimizer, Samples], None]


def our_loop(
    study: Study, model: nn.Module, optimizer: torch.optim.Optimizer, samples: Samples
) -> None:
    """Train as a site does in one round, where the network is."""
    device = next(model.parameters()).device
    source = PlainGradient(model, study.training, len(samples.patients), generator(study.seed))
    task = build_task(study.task)
    train_round(
        source, optimizer, samples, task, study, augment(study.data, generator(study.seed)), device
    )


def bare_loop(
    study: Study, model: nn.Module, optimizer: torch.optim.Optimizer, samples: Samples
) -> None:
    """Train on the same batches with nothing but PyTorch; one epoch holds all steps."""
    loss_of = build_task(study.task).loss
    order = torch.randperm(len(samples.images), generator=generator(study.seed))
    model.train()
    for indices in torch.split(order, study.training.batch_size):
        optimizer.zero_grad(set_to_none=True)
        loss = loss_of(model(samples.images[indices]), samples.targets[indices])
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()


def network_of(study: Study, loop: Loop, samples: Samples) -> nn.Module:
    """Return a new network that the loop has trained; the same bytes from every loop."""
    model = build_model(study.model, study.seed)
    loop(study, model, build_optimizer(study.training, model, study.training.lr), samples)
    return model


def seconds_of(study: Study, loop: Loop, samples: Samples, device: torch.device) -> float:
    """Return the time that the loop takes on a new network; making it is not counted."""
    model = build_model(study.model, study.seed).to(device)
    optimizer = build_optimizer(study.training, model, study.training.lr)
    clock = clock_of(device)
    began = clock()
    loop(study, model, optimizer, samples)
    return clock() - began


def made_up_samples(study: Study, steps: int) -> Samples:
    """Return just as many random samples as the steps take, each of a patient of its own."""
    count = steps * study.training.batch_size
    draws = generator(study.seed)
    images = torch.randn(count, study.data.planes, *study.data.size, generator=draws)
    targets: Tensor
    if study.task.name == "segmentation":
        targets = (images[:, :1] > 1).long()
    else:
        targets = torch.randint(len(study.task.classes), (count,), generator=draws)
    return Samples(
        images=images,
        targets=targets,
        patients=tuple(map(str, range(count))),
        volumes=tuple(range(count)),
        spacing_mm=((1.0,) * study.data.spatial_dims,) * count,
    )


if __name__ == "__main__":
    main()
