"""Numbers of a run in MLflow, through its own client: an experiment a study, a run a run."""

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from common.files import read_json, write_json
from server.tracking.numbers import Event, numbers_of

FILE = "mlflow.json"
MOST_IN_A_CALL = 1000
"""MLflow's own limit of metrics in one call."""
STATUS = {"completed": "FINISHED", "stopped": "KILLED"}
"""In MLflow's list; every other end is FAILED there, also one that a site was missing in."""
# Nothing but the tracking server is asked, and one that is down is soon seen to be.
ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
}
_NOT_ALLOWED = re.compile(r"[^\w\-. /]")


class MlflowSink:
    """Tells one run to a tracking server; what it is called there is kept in the run's folder."""

    name = "mlflow"

    def __init__(self, run: Path, study: str, uri: str) -> None:
        for key, value in ENVIRONMENT.items():
            os.environ.setdefault(key, value)
        from mlflow import MlflowClient

        self._run, self._study = run, study
        self._client = MlflowClient(tracking_uri=uri)
        self._id: str | None = None

    def take(self, events: Sequence[Event]) -> None:
        """Tell the numbers of the events, and the end."""
        from mlflow.entities import Metric

        numbers = [number for event in events for number in numbers_of(event)]
        ended = [str(event.get("status")) for event in events if event["event"] == "end"]
        if not numbers and not ended:
            return
        run = self._begun()
        metrics = [
            Metric(_NOT_ALLOWED.sub("_", of.name), of.value, round(1000 * of.time), of.round)
            for of in numbers
        ]
        for first in range(0, len(metrics), MOST_IN_A_CALL):
            self._client.log_batch(run, metrics=metrics[first : first + MOST_IN_A_CALL])
        if ended:
            self._client.set_tag(run, "wardround.status", ended[-1])
            self._client.set_terminated(run, STATUS.get(ended[-1], "FAILED"))

    def close(self) -> None:
        """Nothing is open."""

    def _begun(self) -> str:
        if self._id is None:
            path = self._run / FILE
            about: Mapping[str, Any] = read_json(path) if path.exists() else self._made(path)
            self._id = str(about["run_id"])
        return self._id

    def _made(self, path: Path) -> Mapping[str, Any]:
        known = self._client.get_experiment_by_name(self._study)
        experiment = (
            self._client.create_experiment(self._study) if known is None else known.experiment_id
        )
        overrides = read_json(self._run / "run.json").get("overrides", [])
        tags = {"mlflow.runName": self._run.name, "wardround.overrides": "\n".join(overrides)}
        about = {"run_id": self._client.create_run(experiment, tags=tags).info.run_id}
        write_json(path, about)
        return about
