"""Every network: a step without and with privacy, and prediction.

    python -m simulation.benchmark.models [--json] [--quick]

Batches of 8 grey images of 64 x 64, two classes, the default settings, one thread; the rows `at
128` have images of 128 x 128. `step_ms` is a forward and a backward pass, `private` the same with
each image's gradient clipped by itself, over it. `predict_s` is the time for 1000 images. Medians
of five turns, in which every way has its place; seconds are the process's own processor time, so
what a neighbour takes is not counted.
"""

import sys
import time
from collections.abc import Callable
from statistics import median

import torch
from torch import Tensor, nn

from client.privacy.engine.attach import Engine
from common.models.catalogue import CARDS, usual_config
from common.models.registry import build_model
from simulation.benchmark.table import Row, begin_with_environment, by_turns, run_benchmark

TURNS, BATCH, SIDE, LARGE = 5, 8, 64, 128
IMAGES = 1000
AT_128 = ("unet", "unet128")
QUICK = ("unet", "cnn")


def main() -> None:
    """Measure every network and print the rows."""
    begin_with_environment()
    run_benchmark("models", "every network, one thread", measure, sys.argv[1:])


def measure(quick: bool) -> list[Row]:
    """Return a row for each network."""
    names = QUICK if quick else tuple(CARDS)
    rows = [_row(name, SIDE, name) for name in names]
    return rows + [_row(name, LARGE, f"{name} at {LARGE}") for name in AT_128 if name in names]


def _row(name: str, side: int, title: str) -> Row:
    network = build_model(usual_config(name, 2, side), 0)
    images = torch.randn(BATCH, 1, side, side, generator=torch.Generator().manual_seed(0))
    ways: dict[str, Callable[[], object]] = {
        "plain": lambda: _step(network, images),
        "private": lambda: _private_step(network, images),
        "predict": lambda: _predict(network, images),
    }
    seconds = by_turns(ways, TURNS, time.process_time)
    ratios = [b / a for a, b in zip(seconds["plain"], seconds["private"], strict=True)]
    return {
        "name": title,
        "weights": sum(p.numel() for p in network.parameters()),
        "step_ms": 1000 * median(seconds["plain"]),
        "private": median(ratios),
        "predict_s": IMAGES / BATCH * median(seconds["predict"]),
    }


def _step(network: nn.Module, images: Tensor) -> None:
    network.train().zero_grad(set_to_none=True)
    torch.autograd.backward(network(images).square().mean())


def _private_step(network: nn.Module, images: Tensor) -> None:
    engine = Engine(network.train())
    try:
        with engine.recording([1] * len(images)) as tape:
            torch.autograd.backward(network(images).square().mean())
        tape.clipped_sums(1.0)
    finally:
        engine.close()


def _predict(network: nn.Module, images: Tensor) -> None:
    network.eval()
    with torch.inference_mode():
        network(images)


if __name__ == "__main__":
    main()
