"""A private training step over a plain one: the engine here, Opacus' hooks, functorch.

    python -m simulation.benchmark.dp_step [--json] [--quick]

Every way trains the same network on the same batch; the private ones clip each image's gradient,
add noise and scale. All ways run in turn, so that a neighbour on the machine slows all of them.
Seconds are the process's own processor time on one thread (on a GPU the time until it is done). A
ratio is the median over the turns of seconds, private over plain. On a GPU the rows come twice,
the second time in mixed precision.

`memory` is the engine's peak over that of the plain step, both above what the process held before,
after the images' own gradients (which clipping needs) are taken off; each peak of a process of its
own. `kept_mb` are those gradients.
"""

import copy
import multiprocessing
import resource
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, nullcontext
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import psutil
import torch
from monai.networks.nets import BasicUNet, UNet
from opacus import GradSampleModule
from opacus.optimizers import DPOptimizer
from opacus.optimizers.optimizer_fast_gradient_clipping import DPOptimizerFastGradientClipping
from torch import Tensor, nn
from torch.nn import functional as F

from client.privacy.engine.attach import Engine
from common.models.catalogue import CARDS, usual_config
from common.models.registry import build_model
from simulation.benchmark.table import (
    Row,
    begin_with_environment,
    by_turns,
    clock_of,
    run_benchmark,
    told_row,
)

TURNS = 5
QUICK = ("unet2d", "cnn-2d")
"""Rows of --quick."""
WAYS = ("plain", "ours", "hooks", "functorch")
BATCHES = {2: (16, 64), 3: (4, 32)}
"""Images, and voxels a side, by the axes of an image."""
MEGABYTE = 2**20


@dataclass(frozen=True, kw_only=True)
class Load:
    """One row: a network and its batch."""

    name: str
    build: Callable[[], nn.Module]
    shape: tuple[int, ...]
    """[B, C, ...] of the batch."""


Step = Callable[[], None]


def main() -> None:
    """Measure every load and print the rows."""
    begin_with_environment()
    about = "a private step over a plain one, in seconds: the engine here, Opacus' hooks, functorch"
    run_benchmark("dp_step", about, rows_of, sys.argv[1:])


def rows_of(quick: bool) -> list[Row]:
    """Return a row a load; on a GPU two."""
    loads = [load for load in loads_of() if not quick or load.name in QUICK]
    if not torch.cuda.is_available():
        return [told_row(row_of(load, torch.device("cpu"), False)) for load in loads]
    device = torch.device("cuda")
    return [told_row(row_of(load, device, amp)) for load in loads for amp in (False, True)]


def loads_of() -> Iterator[Load]:
    """Yield the three networks of the targets, then every model of the registry."""
    instance = ("INSTANCE", {"affine": True})
    yield Load(
        name="unet2d",
        build=lambda: UNet(2, 1, 1, (32, 64, 128, 256), (2, 2, 2), num_res_units=2, norm=instance),
        shape=(16, 1, 128, 128),
    )
    yield Load(
        name="basicunet2d",
        build=lambda: BasicUNet(
            2,
            1,
            1,
            features=(32, 32, 64, 128, 256, 32),
            norm=("group", {"num_groups": 8}),
            act=("LeakyReLU", {"negative_slope": 0.1}),
        ),
        shape=(8, 1, 128, 128),
    )
    yield Load(
        name="unet3d",
        build=lambda: UNet(3, 1, 1, (16, 32, 64, 128), (2, 2, 2), num_res_units=2, norm=instance),
        shape=(4, 1, 48, 48, 48),
    )
    for name, card in CARDS.items():
        for axes in card.dims:
            yield _of_registry(name, axes)


def _of_registry(name: str, axes: int) -> Load:
    batch, side = BATCHES[axes]
    config = usual_config(name, axes, side)
    return Load(
        name=f"{name}-{axes}d",
        build=lambda: build_model(config, 0),
        shape=(batch, 1, *[side] * axes),
    )


def row_of(load: Load, device: torch.device, amp: bool) -> Row:
    """Return the row of one network."""
    steps = {way: step_of(way, load, device, amp) for way in WAYS}
    able = {way: step for way, step in steps.items() if not isinstance(step, str)}
    unable = [f"{way}: {why}" for way, why in steps.items() if isinstance(why, str)]
    seconds = by_turns(able, TURNS, clock_of(device))
    ratios = {
        way: median(b / a for a, b in zip(seconds["plain"], seconds[way], strict=True))
        for way in able
    }
    return {
        "name": load.name + ("-amp" if amp else ""),
        "batch": "x".join(map(str, load.shape)),
        "plain_ms": 1000 * median(seconds["plain"]),
        **{way: ratios.get(way, "-") for way in WAYS[1:]},
        **memory_of(load, device, amp),
        "why_not": ", ".join(unable),
    }


def step_of(way: str, load: Load, device: torch.device, amp: bool) -> Step | str:
    """Return one training step of a new network, or the error of Opacus where it cannot."""
    network = load.build().to(device).train()
    draws = torch.Generator().manual_seed(0)
    images = torch.randn(load.shape, generator=draws).to(device)
    with torch.no_grad():
        signs = torch.randn(network(images[:1]).shape[1:], generator=draws).sign().to(device)

    def loss() -> Tensor:
        with torch.autocast(device.type, torch.bfloat16) if amp else nullcontext():
            outputs = network(images)
        return F.softplus(outputs.float() * signs).flatten(1).mean(1).mean()

    sgd = torch.optim.SGD(network.parameters(), lr=1e-3)
    noise = {"noise_multiplier": 1.0, "max_grad_norm": 1.0, "expected_batch_size": len(images)}
    if way == "plain":
        return lambda: _plain(sgd, loss)
    if way == "ours":
        optimizer = DPOptimizerFastGradientClipping(sgd, **noise)
        engine = Engine(network)
        return lambda: _ours(optimizer, engine, len(images), loss)
    try:
        hooked = GradSampleModule(copy.deepcopy(network), force_functorch=way == "functorch")
        network = hooked
        private = DPOptimizer(torch.optim.SGD(hooked.parameters(), lr=1e-3), **noise)
        _plain(private, loss)
    # Whatever it raises on a layer that it does not know; it is told in the row.
    except Exception as error:
        return type(error).__name__
    return lambda: _plain(private, loss)


def _plain(optimizer: torch.optim.Optimizer, loss: Callable[[], Tensor]) -> None:
    optimizer.zero_grad()
    loss().backward()  # type: ignore[no-untyped-call]
    optimizer.step()


def _ours(
    optimizer: DPOptimizerFastGradientClipping,
    engine: Engine,
    images: int,
    loss: Callable[[], Tensor],
) -> None:
    optimizer.zero_grad()
    with engine.recording([1] * images) as tape:
        loss().backward()  # type: ignore[no-untyped-call]
    for parameter, gradient in tape.clipped_sums(1.0).items():
        parameter.grad = gradient
    optimizer.step()


def memory_of(load: Load, device: torch.device, amp: bool) -> Row:
    """Return the engine's peak over the plain one's, and what it keeps, each of a new process."""
    context = multiprocessing.get_context("spawn")
    peaks = []
    for way in ("plain", "ours"):
        with context.Pool(1) as pool:
            peaks.append(pool.apply(peak_bytes, (load.name, way, device.type, amp)))
    kept = kept_bytes(load, device)
    return {"memory": (peaks[1] - kept) / peaks[0], "kept_mb": kept / MEGABYTE}


def peak_bytes(name: str, way: str, kind: str, amp: bool) -> int:
    """Return how far one step's peak lies above what the process held before."""
    torch.set_num_threads(1)
    device = torch.device(kind)
    step = step_of(way, next(load for load in loads_of() if load.name == name), device, amp)
    assert not isinstance(step, str)  # plain and ours train every network of a row
    if kind == "cuda":
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        step()
        return torch.cuda.max_memory_allocated(device) - before
    # Linux: begins the process's peak anew, which else may be that of its start.
    Path("/proc/self/clear_refs").write_text("5")
    before = int(psutil.Process().memory_info().rss)
    step()
    peak: int = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak - before


def kept_bytes(load: Load, device: torch.device) -> int:
    """Return the bytes of the images' own gradients of one batch."""
    network = load.build().to(device).train()
    images = torch.randn(load.shape, device=device)
    with closing(Engine(network)) as engine, engine.recording([1] * len(images)) as tape:
        network(images).square().mean().backward()
    return tape.stored_bytes


if __name__ == "__main__":
    main()
