"""A study is run, its model is used on the hospitals' images, and its card is verified."""

import csv
from pathlib import Path

from client.prediction.inputs import TABLE, inputs_at
from client.prediction.run import Settings, predict
from common.export.card import Said
from common.export.folder import export
from common.export.provenance import verify
from common.finished import load_finished
from tests.integration.conftest import Runner

SMALL = (
    "rounds=1",
    "privacy=none",
    "simulation.hospitals.north.patients=10",
    "simulation.hospitals.south.patients=10",
)
SHIFT = ("evaluation=shift", "evaluation.own_model=false", "evaluation.personal_rounds=0")


def test_a_simulated_run_is_used_and_its_card_verified(runner: Runner, tmp_path: Path) -> None:
    result = runner("run", *SMALL, *SHIFT)
    finished = load_finished(tmp_path / "run")
    assert (finished.digest, finished.rounds) == (result["study_digest"], 1)
    images = tmp_path / "run" / "data" / "north" / "images"
    rows = predict(
        finished, inputs_at(images, tmp_path / "out").inputs, Settings(output=tmp_path / "out")
    )
    assert {row.status for row in rows} == {"ok"}
    # The hospitals' own images are what the domain was made of.
    inside = sum(row.domain == "inside" for row in rows)
    assert inside >= 0.9 * len(rows)
    with (tmp_path / "out" / TABLE).open(newline="") as file:
        assert len(list(csv.DictReader(file))) == len(rows)
    best = load_finished(tmp_path / "run" / "best.safetensors")
    assert best.study == finished.study
    export(finished, tmp_path / "model", [], Said(), None)
    found = verify(tmp_path / "model", None)
    assert found.wrong == []
    assert found.provenance["participants"] == ["north", "south"]
