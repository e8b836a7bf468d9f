"""MLflow's client and tensorboardX's writer tell the numbers that the events told."""

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from common.files import write_json
from server.tracking.mlflow_sink import MlflowSink
from server.tracking.numbers import numbers_of
from server.tracking.tensorboard_sink import FOLDER, TensorBoardSink
from tests.server.tracking.receiver import receiver

EVENTS: list[dict[str, Any]] = [
    {"time": 1.5, "event": "measured", "round": 0, "metric": "dice", "values": {"st:a": 0.25}},
    {
        "time": 2.5,
        "event": "round done",
        "round": 1,
        "seconds": 0.5,
        "sites": {"st:a": {"bytes_sent": 1, "bytes_received": 2, "train_loss": 0.75}},
        "missing": {},
        "epsilon": {"st:a": 1.5},
    },
]
END = {"time": 3.5, "event": "end", "status": "partial", "reason": "words"}


def records(path: Path) -> Iterator[Any]:
    """The records of a TFRecord file: length, its checksum, the record, its checksum."""
    from tensorboardX.proto.event_pb2 import Event

    raw, place = path.read_bytes(), 0
    while place < len(raw):
        (size,) = struct.unpack_from("<Q", raw, place)
        yield Event.FromString(raw[place + 12 : place + 12 + size])
        place += 16 + size


def test_tensorboard_reads_the_numbers(tmp_path: Path) -> None:
    sink = TensorBoardSink(tmp_path)
    sink.take(EVENTS)
    sink.take([])
    sink.close()
    (file,) = (tmp_path / FOLDER).iterdir()
    found = {
        (value.tag.replace("st_a", "st:a"), event.step): value.simple_value
        for event in records(file)
        for value in event.summary.value
    }
    assert found == {(of.name, of.round): of.value for e in EVENTS for of in numbers_of(e)}


def answer(path: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    if path.endswith("experiments/get-by-name"):
        return 404, {"error_code": "RESOURCE_DOES_NOT_EXIST", "message": "no"}
    if path.endswith("experiments/create"):
        return 200, {"experiment_id": "7"}
    if path.endswith(("runs/create", "runs/update")):
        info = {"run_id": "abc", "run_uuid": "abc", "experiment_id": "7", "status": "RUNNING"}
        return 200, {"run": {"info": info, "data": {}}, "run_info": info}
    return 200, {}


def test_mlflow_is_told_the_numbers_and_the_end_in_one_run(tmp_path: Path) -> None:
    write_json(tmp_path / "run.json", {"overrides": ["experiment=smoke"]})
    with receiver(answer) as place:
        MlflowSink(tmp_path, "smoke", place.url).take(EVENTS)
        # Another process goes on with the same run.
        MlflowSink(tmp_path, "smoke", place.url).take([END])
    by_verb: dict[str, list[dict[str, Any]]] = {}
    for told in place.told:
        by_verb.setdefault(told.path.split("/mlflow/")[-1].split("?")[0], []).append(told.json)
    (made,) = by_verb["runs/create"]
    assert made["experiment_id"] == "7"
    assert {"key": "mlflow.runName", "value": tmp_path.name} in made["tags"]
    (batch,) = by_verb["runs/log-batch"]
    found = {(m["key"].replace("st_a", "st:a"), m["step"]): m["value"] for m in batch["metrics"]}
    assert found == {(of.name, of.round): of.value for e in EVENTS for of in numbers_of(e)}
    assert by_verb["runs/update"][-1]["status"] == "FAILED"
    assert {"key": "wardround.status", "value": "partial"} in [
        {key: told[key] for key in ("key", "value")} for told in by_verb["runs/set-tag"]
    ]
    assert not any(b"words" in told.body for told in place.told)
