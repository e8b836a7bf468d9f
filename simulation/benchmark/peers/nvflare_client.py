"""What NVFlare's processes load: the client's script, and the place where the model is kept.

NVFlare copies this file into the job: it imports nothing from beside it.
"""

import argparse
import json
import sys
import time
from pathlib import Path

import numpy as np
import nvflare.client as flare
from nvflare.apis.fl_context import FLContext
from nvflare.app_common.abstract.model import (
    ModelLearnable,
    ModelLearnableKey,
    make_model_learnable,
)
from nvflare.app_common.abstract.model_persistor import ModelPersistor
from nvflare.app_common.app_constant import AppConstants

INITIAL, SAVED, NOTES = "initial.npz", "saved.npz", "notes.jsonl"


class NotingPersistor(ModelPersistor):
    """Keeps a model of several arrays and notes when it was asked for it, and given it.

    FedAvg loads the model just before its first round and saves it at the end of every round.
    NVFlare's own NPModelPersistor does the same for a model of one array.

    folder: where INITIAL is, and where SAVED and NOTES are written.
    """

    def __init__(self, folder: str) -> None:
        super().__init__()
        self.folder = folder

    def load_model(self, fl_ctx: FLContext) -> ModelLearnable:
        """Return the initial model; note when."""
        with np.load(Path(self.folder) / INITIAL) as arrays:
            model = make_model_learnable(dict(arrays), {})
        self._note(0)
        return model

    def save_model(self, model: ModelLearnable, fl_ctx: FLContext) -> None:
        """Write the averaged model; note when, and of how many updates it is the average."""
        np.savez(Path(self.folder) / SAVED, **model[ModelLearnableKey.WEIGHTS])
        self._note(fl_ctx.get_prop(AppConstants.AGGREGATION_STATS)["accepted_contributions"])

    def _note(self, averaged: int) -> None:
        note = {"time_s": time.clock_gettime(time.CLOCK_BOOTTIME), "averaged": averaged}
        with (Path(self.folder) / NOTES).open("a") as notes:
            notes.write(json.dumps(note) + "\n")


def answer() -> None:
    """Answer every model with itself, trained where there is work."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--work", type=Path, help="folder of the clients' work; else they echo")
    parser.add_argument("--modules", help="where work.py is")
    options = parser.parse_args()
    flare.init()
    place = int(flare.get_site_name().removeprefix("site-")) - 1
    while flare.is_running():
        model = flare.receive()
        params = model.params
        if options.work:
            sys.path.append(options.modules)
            from work import trained

            # Sorted, since the names are the places with leading zeros.
            weights = [params[name] for name in sorted(params)]
            done = trained(weights, options.work, place, model.current_round)
            params = dict(zip(sorted(params), done, strict=True))
        flare.send(flare.FLModel(params=params))


if __name__ == "__main__":
    answer()
