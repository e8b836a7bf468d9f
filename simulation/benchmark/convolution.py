"""The three ways to the weight gradients of single images in a convolution, over the batch's one.

    python -m simulation.benchmark.convolution [--json] [--quick]

Each way ends in what clipping needs: the norm of each image's gradient, and their weighted sum.
`call` is one call an image, `grouped` one call with groups of its own for each image, `ghost` two
Gram matrices for the norm and one weighted gradient. `plain` is the batch's own weight gradient.
A ratio is the median over the turns of processor seconds over plain, on one thread. `rule` is what
client/privacy/engine/convolution.py chooses for the shape: its thresholds are read off this table.
"""

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

import torch
from torch import nn

from client.privacy.engine import convolution as engine
from client.privacy.engine.tape import Tape
from simulation.benchmark.table import Row, begin_with_environment, by_turns, run_benchmark

TURNS = 5
MOST_GHOST_PLACES = 1024
"""A Gram matrix of more places is not measured: it has the square of their number of entries."""


@dataclass(frozen=True, kw_only=True)
class Layer:
    """One convolution and its batch."""

    axes: int
    batch: int
    channels: tuple[int, int]
    size: int
    kernel: int = 3
    stride: int = 1


LAYERS = (
    Layer(axes=2, batch=16, channels=(32, 32), size=64),
    Layer(axes=2, batch=16, channels=(64, 64), size=32),
    Layer(axes=2, batch=16, channels=(128, 128), size=16),
    Layer(axes=2, batch=16, channels=(128, 256), size=16),
    Layer(axes=2, batch=16, channels=(256, 256), size=8),
    Layer(axes=2, batch=16, channels=(512, 512), size=4),
    Layer(axes=2, batch=32, channels=(8, 16), size=48, stride=2),
    Layer(axes=2, batch=8, channels=(32, 32), size=128),
    Layer(axes=3, batch=4, channels=(16, 16), size=24),
    Layer(axes=3, batch=4, channels=(32, 32), size=12),
    Layer(axes=3, batch=4, channels=(64, 128), size=6),
    Layer(axes=3, batch=4, channels=(256, 256), size=3),
)


def main() -> None:
    """Measure every layer and print the rows."""
    begin_with_environment()
    about = "weight gradients of single images in a convolution, in seconds over the batch's one"
    run_benchmark("convolution", about, rows_of, sys.argv[1:])


def rows_of(quick: bool) -> list[Row]:
    """Return one row a layer; every third of them with --quick."""
    return [row_of(layer) for layer in LAYERS[:: 3 if quick else 1]]


def row_of(layer: Layer) -> Row:
    """Return the ratios of one layer."""
    (inside, outside), axes = layer.channels, layer.axes
    draws = torch.Generator().manual_seed(0)
    images = torch.randn(layer.batch, inside, *[layer.size] * axes, generator=draws)
    weight = nn.Parameter(torch.randn(outside, inside, *[layer.kernel] * axes, generator=draws))
    geometry = engine.Geometry(
        stride=(layer.stride,) * axes,
        padding=(layer.kernel // 2,) * axes,
        dilation=(1,) * axes,
        transposed=False,
        output_padding=(0,) * axes,
        groups=1,
    )
    with torch.no_grad():
        outputs = torch.ops.aten.convolution(images, weight, None, *geometry.arguments)
        outputs = torch.randn(outputs.shape, generator=draws)
        ways: dict[str, Callable[[], object]] = {
            "plain": lambda: engine.gradients(outputs, images, weight, geometry, 1)
        }
        for way in engine.WAYS:
            if way != "ghost" or outputs[0, 0].numel() <= MOST_GHOST_PLACES:
                ways[way] = _clipping(way, weight, outputs, images, geometry)
        seconds = by_turns(ways, TURNS, time.process_time)
    tape = Tape([1] * layer.batch)
    tape.use(weight)
    return {
        "name": f"{axes}-D {inside}->{outside} at {layer.size}",
        "batch": layer.batch,
        "places": outputs[0, 0].numel(),
        "plain_ms": 1000 * median(seconds["plain"]),
        **{
            way: median(b / a for a, b in zip(seconds["plain"], seconds[way], strict=True))
            if way in seconds
            else "-"
            for way in engine.WAYS
        },
        "rule": engine.method_for(tape, weight, outputs, images, geometry),
    }


def _clipping(
    way: str,
    weight: nn.Parameter,
    outputs: torch.Tensor,
    images: torch.Tensor,
    geometry: engine.Geometry,
) -> Callable[[], object]:
    def run() -> object:
        tape = Tape([1] * len(outputs))
        engine.WAYS[way](tape, weight, engine.Pass(outputs, images, weight, geometry))
        return tape.clipped_sums(1.0)

    return run


if __name__ == "__main__":
    main()
