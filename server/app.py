"""The ServerApp: one run of one study, from its checkpoint if it has one.

Where runs lie is the server's own matter and comes from its environment; the run configuration
carries the folder's name, the study's overrides and the agreed sites, both as JSON lists.
"""

import json
import os
from functools import partial
from pathlib import Path

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from common.config import load_study
from common.supervision import end_with_parent
from server.calls import Watch
from server.events import event_log
from server.network import Federation
from server.presence import Presence
from server.run import reference_to, run_study
from server.studies import REAL, RUNS_FOLDER, StudyRun, stop_asked
from server.weights import InFiles

POLL_S = 0.2

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run the study; result.json tells how it ended."""
    if os.environ.get(REAL):
        # Left behind, it would hold the study's folder and wait for a centre that is gone.
        end_with_parent()
    folder = Path(os.environ[RUNS_FOLDER]) / str(context.run_config["run"])
    overrides = json.loads(str(context.run_config["overrides"]))
    agreed = json.loads(str(context.run_config["sites"]))
    study = load_study(overrides)
    with StudyRun(folder).working():
        tell = event_log(folder)
        watch = _watch(folder) if os.environ.get(REAL) else Watch()
        federation = Federation(grid, reference_to(study, overrides), tell, watch)
        run_study(study, federation, agreed, folder, tell)
        watch.weights.end()


def _watch(folder: Path) -> Watch:
    """Return how a study over a real network is watched: by the files of the server's daemon."""
    return Watch(
        presence=Presence(folder.parent.parent),
        join_timeout_s=StudyRun(folder).asked.join_timeout_s,
        stopped=partial(stop_asked, folder),
        poll_s=POLL_S,
        weights=InFiles(folder),
    )
