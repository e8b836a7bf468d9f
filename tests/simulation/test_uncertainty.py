from pathlib import Path

import pytest
from rich.console import Console

from common.files import read_json
from common.schema import SettingsError
from simulation.uncertainty import FILE, PICTURE, show_uncertainty
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
    for row in found["rows"]:
        # The curve ends at the risk of all answers, and passes the one at 80 %.
        assert (len(row["curve"]), row["curve"][-1]) == (100, row["risk"])
        assert row["curve"][79] == pytest.approx(row["risk_at_80"])
    assert (folder / PICTURE).read_bytes().startswith(b"\x89PNG")
    final = result["final"]["mean"]["auroc"]
    assert federated["headline"] == pytest.approx(final, abs=1e-6)
    show_uncertainty(folder, QUIET)
    assert read_json(folder / FILE) == found


def test_a_temperature_that_the_study_has_is_not_found_on_top_of_itself(tmp_path: Path) -> None:
    data = pictures(tmp_path / "data")
    for name, setting in (("cold", "task.temperature=null"), ("warm", "task.temperature=2")):
        usual = ("task=classification", *SMALL_CNN)
        run(tmp_path / name, data, *usual, setting, label="label")
        show_uncertainty(tmp_path / name, QUIET)
    cold, warm = (read_json(tmp_path / name / FILE) for name in ("cold", "warm"))
    assert cold["temperature"] == warm["temperature"]
    cooled = [of["rows"][-1] for of in (cold, warm)]
    assert cooled[0]["ece"] == pytest.approx(cooled[1]["ece"], abs=1e-5)


def test_a_site_without_held_out_patients_is_passed_over(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    (tmp_path / "data").mkdir()
    columns = {
        "label": lambda _, k: ("normal", "pneumonia")[k % 2],
        "side": lambda site, k: "train" if site == "south" or k < 3 else "test",
    }
    data = listed(tmp_path / "data", columns)
    settings = ("+simulation.partition.split_column=side", "task=classification", *SMALL_CNN)
    run(folder, data, *settings, label="label")
    show_uncertainty(folder, QUIET)
    assert read_json(folder / FILE)["rows"]


def test_a_threshold_of_each_sites_own_is_refused(tmp_path: Path) -> None:
    data, folder = pictures(tmp_path / "data"), tmp_path / "run"
    chosen = ("task.threshold_share=0.4", "task.headline=sensitivity")
    run(folder, data, "task=classification", *SMALL_CNN, *chosen, label="label")
    with pytest.raises(SettingsError, match="entropy says nothing of a threshold"):
        show_uncertainty(folder, QUIET)


def test_a_run_without_classes_or_without_an_end_is_refused(tmp_path: Path) -> None:
    data = pictures(tmp_path / "data")
    grey = ("task=restoration", "data.normalise=minmax", *SMALL_UNET)
    run(tmp_path / "grey", data, *grey, label="label")
    with pytest.raises(SettingsError, match="entropies are between classes"):
        show_uncertainty(tmp_path / "grey", QUIET)
    with pytest.raises(SettingsError, match="holds no run"):
        show_uncertainty(tmp_path / "none", QUIET)
