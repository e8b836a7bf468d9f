"""The empty round in NVFlare: FedAvgRecipe in SimEnv, two threads, arrays of NumPy.

    python run_nvflare.py --clients N --shapes FILE.json --rounds R

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

from measured import ENVIRONMENT, WORKERS, read_arguments, take_stdout, write_result

os.environ.update(ENVIRONMENT)

import numpy as np
import nvflare_echo
from nvflare.fuel.utils.constants import FrameworkType
from nvflare.recipe import SimEnv
from nvflare.recipe.fedavg import FedAvgRecipe
from nvflare_echo import INITIAL, NOTES, SAVED, NotingPersistor

JOB = "empty_round"
ERRORS = f"{JOB}/server/error_log.txt"


def main() -> None:
    """Measure, check, and write the result."""
    asked = read_arguments()
    out = take_stdout()
    random = np.random.default_rng(0)
    initial = {
        f"tensor {place}": random.standard_normal(shape, dtype=np.float32)
        for place, shape in enumerate(asked.shapes)
    }
    with tempfile.TemporaryDirectory(prefix="nvflare-empty-round-") as name:
        folder = Path(name)
        np.savez(folder / INITIAL, **initial)
        recipe = FedAvgRecipe(
            name=JOB,
            min_clients=asked.clients,
            num_rounds=asked.rounds,
            train_script=nvflare_echo.__file__,
            framework=FrameworkType.NUMPY,
            model_persistor=NotingPersistor(name),
        )
        threads = min(WORKERS, asked.clients)
        recipe.execute(SimEnv(num_clients=asked.clients, num_threads=threads, workspace_root=name))
        if errors := (folder / ERRORS).read_text():
            sys.exit(errors)
        notes = [json.loads(line) for line in (folder / NOTES).read_text().splitlines()]
        with np.load(folder / SAVED) as arrays:
            final = dict(arrays)
    echoed = initial.keys() == final.keys() and all(
        np.allclose(initial[key], final[key], rtol=1e-4, atol=1e-6) for key in initial
    )
    times_s = [note["time_s"] for note in notes]
    averaged = [note["averaged"] for note in notes[1:]]
    write_result(out, "nvflare", asked, times_s, averaged, echoed)


if __name__ == "__main__":
    main()
