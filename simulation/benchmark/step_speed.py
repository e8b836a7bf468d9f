"""Three ways to make a training step faster, each over the step as it is.

    python -m simulation.benchmark.step_speed [--json] [--quick]

`bf16` is mixed precision (training.amp=true), `last` the memory format channels_last in float32,
`last_bf16` both over bf16 alone, `compiled` torch.compile in float32, `compile_s` how long its
first step takes, in seconds by the clock; where it ends in an error, that is told under the table.
1 means as fast, 2 twice as fast: medians of five turns, one thread's processor time; every network
is trained from the same weights on the same images, in a process that keeps the memory that a step
frees, as a site's trainer does.
"""

import sys
import time
from collections.abc import Callable
from statistics import median

import torch
from torch import Tensor, nn

from common.config import load_study
from common.kept_memory import keep_freed_memory
from common.models.registry import build_model
from common.study import Study
from simulation.benchmark.table import Row, begin_with_environment, by_turns, run_benchmark

LOADS = {
    "unet2d": (("model=unet", "data=slices"), 8),
    "unet3d": (("model=unet", "data=volumes"), 2),
    "cnn": (("model=cnn", "task=classification", "data=pictures"), 32),
    "unet128": (("model=unet128", "data=slices"), 4),
    "resnet18": (("model=resnet18", "task=classification", "data=pictures"), 8),
    "densenet121": (("model=densenet121", "task=classification", "data=pictures"), 8),
}
QUICK = ("unet2d", "cnn")
TURNS, STEPS = 5, 3

Step = Callable[[], None]


def main() -> None:
    """Measure every network and print the rows."""
    begin_with_environment()
    keep_freed_memory()
    about = "a training step by other ways, in steps a second over the step as it is"
    run_benchmark("step_speed", about, rows_of, sys.argv[1:])


def rows_of(quick: bool) -> list[Row]:
    """Return a row a network."""
    return [row_of(name) for name in LOADS if not quick or name in QUICK]


def row_of(name: str) -> Row:
    """Return how many times as fast a network's step is by each way."""
    study, images = load_of(name)
    last = torch.channels_last if images.ndim == 4 else torch.channels_last_3d
    moved = images.to(memory_format=last)

    def network(memory_format: torch.memory_format = torch.preserve_format) -> nn.Module:
        built = build_model(study.model, study.seed)
        # PyTorch's types have this keyword for tensors alone.
        return built.to(memory_format=memory_format)  # type: ignore[call-overload, no-any-return]

    compiled = step_of(torch.compile(network()), images, amp=False)
    compile_s, why_not = first_s(compiled)
    ways = {
        "plain": step_of(network(), images, amp=False),
        "bf16": step_of(network(), images, amp=True),
        "last": step_of(network(last), moved, amp=False),
        "last_bf16": step_of(network(last), moved, amp=True),
        **({} if why_not else {"compiled": compiled}),
    }
    seconds = by_turns(ways, TURNS, time.process_time)

    def faster(way: str, than: str = "plain") -> float:
        return median(a / b for a, b in zip(seconds[than], seconds[way], strict=True))

    return {
        "name": name,
        "batch": len(images),
        "plain_ms": 1000 * median(seconds["plain"]) / STEPS,
        "bf16": faster("bf16"),
        "last": faster("last"),
        "last_bf16": faster("last_bf16", than="bf16"),
        "compiled": "-" if why_not else faster("compiled"),
        "compile_s": compile_s,
        "why_not": why_not,
    }


def load_of(name: str) -> tuple[Study, Tensor]:
    """Return the study of a network, and images for one step."""
    overrides, batch = LOADS[name]
    study = load_study(overrides)
    draws = torch.Generator().manual_seed(0)
    return study, torch.randn(batch, study.data.planes, *study.data.size, generator=draws)


def first_s(step: Step) -> tuple[float, str]:
    """Return the seconds of a step that compiles, and the error's name where it cannot."""
    began, why_not = time.monotonic(), ""
    try:
        # Else what an earlier run compiled would be taken from its cache.
        with torch._inductor.config.patch(force_disable_caches=True):
            step()
    # What the compiler raises on a network is its own; it is told in the row.
    except Exception as error:
        why_not = type(error).__name__
    return time.monotonic() - began, why_not


def step_of(network: Callable[[Tensor], Tensor], images: Tensor, amp: bool) -> Step:
    """Return what takes STEPS passes forward and back."""

    def step() -> None:
        for _ in range(STEPS):
            with torch.autocast("cpu", torch.bfloat16, enabled=amp):
                answer = network(images)
            torch.autograd.backward(answer.float().square().mean())

    return step


if __name__ == "__main__":
    main()
