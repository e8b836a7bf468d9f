"""Every network as TorchScript, torch.export and ONNX: whether it can be, and how large it is.

    python -m simulation.benchmark.exports [--json] [--quick]

The default settings, grey images of 64 x 64, two classes. Each file is read again and asked with
another number of images; the answers may differ by 1e-4. Sizes are in MB.
"""

import sys
from pathlib import Path

from common.config import load_study, study_digest
from common.export.graphs import ExportError, Graph, onnx, program, torchscript
from common.finished import Finished
from common.models.catalogue import CARDS
from common.models.registry import build_model
from simulation.benchmark.table import Row, begin_with_environment, run_benchmark

SIDE = 64
QUICK = ("unet", "cnn")
MEGABYTE = 2**20


def main() -> None:
    """Export every network and print the rows."""
    begin_with_environment()
    run_benchmark("exports", "every network as a file of other programs, MB", measure, sys.argv[1:])


def measure(quick: bool) -> list[Row]:
    """Return a row for each network."""
    return [_row(name) for name in (QUICK if quick else tuple(CARDS))]


def _row(name: str) -> Row:
    overrides = [f"model={name}", f"task={CARDS[name].tasks[0]}", "data=pictures"]
    study = load_study([*overrides, f"data.size=[{SIDE},{SIDE}]"])
    finished = Finished(
        weights=Path(),
        study=study,
        digest=study_digest(study),
        network=build_model(study.model, 0).eval(),
        rounds=None,
        result=None,
    )
    return {
        "name": name,
        "TorchScript": _size(torchscript, finished),
        "torch.export": _size(program, finished),
        "ONNX": _size(onnx, finished),
    }


def _size(graph: Graph, finished: Finished) -> str:
    try:
        return f"{len(graph(finished, {})) / MEGABYTE:.2f}"
    except ExportError as error:
        return str(error)


if __name__ == "__main__":
    main()
