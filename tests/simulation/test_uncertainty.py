from pathlib import Path

import pytest
from rich.console import Console

from common.files import read_json
from common.schema import SettingsError
from simulation.uncertainty import FILE, show_uncertainty
from tests.integration.test_every_task import SMALL_CNN, SMALL_UNET, listed, run

QUIET = Console(quiet=True)
TEMPERED = ("model.dropout=0.2", "task.temperatures=[0.5,1,2]", "evaluation=shift")


def pictures(folder: Path) -> Path:
    folder.mkdir()
    return listed(folder, {"label": lambda _, k: ("normal", "pneumonia")[k % 2]})


def test_a_finished_run_is_asked_in_every_way_and_its_temperature_is_told(tmp_path: Path) -> None:
    data, folder = pictures(tmp_path / "data"), tmp_path / "run"
    result = run(folder, data, "task=classification", *SMALL_CNN, *TEMPERED, label="label")
    assert result["temperature"]["value"] in (0.5, 1.0, 2.0)
    assert set(result["temperature"]["nll"]) == {"0.5", "1", "2"}
    show_uncertainty(folder, QUIET)
    found = read_json(folder / FILE)
    rows = {row["way"]: row for row in found["rows"]}
    assert set(rows) == {
        "federated",
        "drop-out left on",
        "ensemble of the sites",
        "federated, with a temperature",
    }
    federated, cooled = rows["federated"], rows["federated, with a temperature"]
    # A temperature changes how sure an answer is, and no answer.
    assert cooled["risk"] == federated["risk"]
    assert cooled["ece"] is not None
    final = result["final"]["mean"]["auroc"]
    assert federated["headline"] == pytest.approx(final, abs=1e-6)
    show_uncertainty(folder, QUIET)
    assert read_json(folder / FILE) == found


def test_a_run_without_classes_or_without_an_end_is_refused(tmp_path: Path) -> None:
    data = pictures(tmp_path / "data")
    grey = ("task=restoration", "data.normalise=minmax", *SMALL_UNET)
    run(tmp_path / "grey", data, *grey, label="label")
    with pytest.raises(SettingsError, match="entropies are between classes"):
        show_uncertainty(tmp_path / "grey", QUIET)
    with pytest.raises(SettingsError, match="holds no run"):
        show_uncertainty(tmp_path / "none", QUIET)
