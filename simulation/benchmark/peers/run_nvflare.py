"""Rounds in NVFlare: FedAvgRecipe in SimEnv, two threads, arrays of NumPy.

    python run_nvflare.py --clients N --shapes FILE.json --rounds R [--work FOLDER]

With fewer threads than clients SimEnv starts a process for every client in every round, and that
is most of the time. It takes 100 clients at most. FedAvg saves the model once a round. A thread of
SimEnv that loses its client ends and leaves the clients to the others, at another speed: where
NVFlare logged an error there is no result.
"""

import json
import os
import sys
import tempfile
from pathlib import Path

from measured import (
    ENVIRONMENT,
    WORKERS,
    initial_weights,
    read_arguments,
    take_stdout,
    write_result,
)

os.environ.update(ENVIRONMENT)

import numpy as np
import nvflare_client
from nvflare.fuel.utils.constants import FrameworkType
from nvflare.recipe import SimEnv
from nvflare.recipe.fedavg import FedAvgRecipe
from nvflare_client import INITIAL, NOTES, SAVED, NotingPersistor

JOB = "empty_round"
ERRORS = f"{JOB}/server/error_log.txt"


def main() -> None:
    """Measure, check, and write the result."""
    asked = read_arguments()
    out = take_stdout()
    initial = {f"{place:04d}": array for place, array in enumerate(initial_weights(asked))}
    arguments = f"--work {asked.work} --modules {Path(__file__).parent}" if asked.work else ""
    with tempfile.TemporaryDirectory(prefix="nvflare-empty-round-") as name:
        folder = Path(name)
        np.savez(folder / INITIAL, **initial)
        recipe = FedAvgRecipe(
            name=JOB,
            min_clients=asked.clients,
            num_rounds=asked.rounds,
            train_script=nvflare_client.__file__,
            train_args=arguments,
            framework=FrameworkType.NUMPY,
            model_persistor=NotingPersistor(name),
        )
        threads = min(WORKERS, asked.clients)
        recipe.execute(SimEnv(num_clients=asked.clients, num_threads=threads, workspace_root=name))
        if errors := (folder / ERRORS).read_text():
            sys.exit(errors)
        notes = [json.loads(line) for line in (folder / NOTES).read_text().splitlines()]
        with np.load(folder / SAVED) as arrays:
            final = [arrays[key] for key in initial]
    times_s = [note["time_s"] for note in notes]
    averaged = [note["averaged"] for note in notes[1:]]
    write_result(out, "nvflare", asked, times_s, averaged, final)


if __name__ == "__main__":
    main()
