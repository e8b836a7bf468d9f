"""A study of many virtual hospitals on one machine: does the time of a round grow in proportion?

    python -m simulation.benchmark.scale [--json] [--quick]

Each row is one process: so many hospitals of 20 images of 32 x 32 pixels, a network of 7 MB, three
rounds of one pass. `first_s` is round 1, in which every hospital's network and images are new to
the process; `ms` is a hospital's share of a later round (the median), `make_s` is until round 1
begins: hospitals made, images read. `rss_mb` is the peak of the run's own process, `actor_mb` that
of the largest one under it (0: none was there). `exponent` is that of the time of a round since
the row before:
1 is in proportion.
"""

import json
import math
import os
import subprocess
import sys
import tempfile
from itertools import pairwise
from pathlib import Path
from statistics import median

import numpy as np
from PIL import Image

from common.files import read_json
from server.events import EVENTS
from server.run import RESULT
from simulation.benchmark.echo import Children, round_starts_s
from simulation.benchmark.table import Row, begin_with_environment, run_benchmark

HOSPITALS, HOSPITALS_QUICK = (10, 100, 1000), (4, 16)
IMAGES, SIDE, ROUNDS = 20, 32, 3
STUDY = (
    "simulation=real",
    "task=classification",
    "data=pictures",
    f"data.size=[{SIDE},{SIDE}]",
    "model=cnn",
    "model.channels=[64,128,256,600]",
    f"rounds={ROUNDS}",
    f"evaluate_every={ROUNDS}",
    "+simulation.partition.mask_column=null",
)


def main() -> None:
    """Measure each number of hospitals and print the rows."""
    begin_with_environment()
    run_benchmark("scale", "many hospitals: the time of a round", rows_of, sys.argv[1:])


def rows_of(quick: bool) -> list[Row]:
    """Return one row a number of hospitals."""
    rows: list[Row] = []
    before: tuple[int, float] | None = None
    for count in HOSPITALS_QUICK if quick else HOSPITALS:
        row, round_s = row_of(count, before)
        rows.append(row)
        before = count, round_s
    return rows


def row_of(hospitals: int, before: tuple[int, float] | None) -> tuple[Row, float]:
    """Return the row of so many hospitals, and the seconds of a later round.

    before: the hospitals and seconds of the row before.

    Raises:
        RuntimeError: the run did not complete, so there is nothing to measure.
    """
    with tempfile.TemporaryDirectory(prefix="wardround-scale-") as name:
        data, run = Path(name) / "data", Path(name) / "run"
        write_data(data, hospitals, SIDE)
        rss_mb, actor_mb = _peak_rss_mb([*STUDY, f"data.root={data}", f"run.dir={run}"])
        result = read_json(run / RESULT)
        if result["status"] != "completed":
            raise RuntimeError(f"the run ended as {result['status']}: {result['reason']}")
        starts_s = round_starts_s(run / EVENTS)
        events = [json.loads(line) for line in (run / EVENTS).read_text().splitlines()]
    rounds_s = [later - start for start, later in pairwise(starts_s)]
    round_s = median(rounds_s[1:])
    row: Row = {
        "name": f"ours@{hospitals}",
        "engine": [e["name"] for e in events if e["event"] == "engine"][-1],
        "make_s": starts_s[0] - events[0]["time"],
        "first_s": rounds_s[0],
        "round_s": round_s,
        "ms": 1000 * round_s / hospitals,
        "exponent": "-" if before is None else exponent(before, (hospitals, round_s)),
        "rss_mb": rss_mb,
        "actor_mb": actor_mb,
    }
    return row, round_s


def exponent(before: tuple[int, float], now: tuple[int, float]) -> float:
    """Return k of seconds ~ hospitals^k through two points (hospitals, seconds)."""
    return math.log(now[1] / before[1]) / math.log(now[0] / before[0])


def write_data(root: Path, hospitals: int, side: int) -> None:
    """Write square images of noise, brighter where the label is 1, with their manifest."""
    draws = np.random.default_rng(0)
    root.mkdir(parents=True)
    lines = ["path,label,site"]
    for place in range(hospitals):
        site = f"h{place:04d}"
        (root / site).mkdir()
        for number in range(IMAGES):
            label, path = number % 2, f"{site}/{site}-{number:02d}.png"
            pixels = draws.integers(0, 128, (side, side)) + 127 * label
            Image.fromarray(pixels.astype(np.uint8)).save(root / path)
            lines.append(f"{path},{('normal', 'pneumonia')[label]},{site}")
    (root / "manifest.csv").write_text("\n".join(lines) + "\n")


def _peak_rss_mb(overrides: list[str]) -> tuple[float, float]:
    """Run the study as a process and return the most memory that it and one under it had."""
    command = [sys.executable, "-m", "simulation.cli", *overrides]
    process = subprocess.Popen(command, stdout=sys.stderr)
    children = Children(process.pid)
    _, status, used = os.wait4(process.pid, 0)
    actor_mb = children.end()
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"the run ended with exit code {process.returncode}")
    return used.ru_maxrss * 1024e-6, actor_mb


if __name__ == "__main__":
    main()
