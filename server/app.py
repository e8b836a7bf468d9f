"""The ServerApp: one run of one study, from its checkpoint if it has one.

Where the run lies is the server's own matter and comes from its environment; the run
configuration carries the study's overrides and the agreed sites, both as JSON lists.
"""

import json
import os
from pathlib import Path

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from common.config import load_study
from server.events import event_log
from server.run import reference_to, run_study
from server.strategy import Federation

RUN_FOLDER = "WARDROUND_RUN"

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run the study; result.json tells how it ended."""
    folder = Path(os.environ[RUN_FOLDER])
    overrides = json.loads(str(context.run_config["overrides"]))
    agreed = json.loads(str(context.run_config["sites"]))
    study = load_study(overrides)
    tell = event_log(folder)
    reference = reference_to(study, overrides)
    run_study(study, Federation(grid, reference, tell), agreed, folder, tell)
