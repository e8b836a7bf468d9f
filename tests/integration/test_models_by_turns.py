"""Over messages alone an ensemble and a personal model are what a simulation makes of them."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from common.config import travelling
from common.files import read_json
from common.state import State
from common.tensor_files import read_tensors
from server.checkpoint import save_checkpoint
from server.evaluation.shift import ENSEMBLE, FEDERATED
from server.progress import Progress
from server.run import MODEL, RESULT
from server.turns import Kind, Turn, turns_of, with_turns
from simulation.baselines import personal_models_of
from simulation.engines.run import run_engine
from simulation.run import Simulation, composed, make_hospitals
from simulation.show import carried_out
from simulation.sites import share_hospitals
from tests.hospitals import Hospitals

QUIET = Console(quiet=True)
# A simulation's own model has one optimiser for all rounds, and a turn's a new one each round.
ONE_ROUND = "rounds=1"
STUDY = (
    "experiment=smoke",
    ONE_ROUND,
    "privacy=none",
    "training.lr=0.02",
    "training.local_epochs=16",
    "evaluation=shift",
    "evaluation.personal_rounds=4",
    "simulation.engine=inprocess",
)
SITES = ("north", "south")
# All images in a batch: the order in which they are drawn changes a rounding alone.
ONE_ORDER = ("training.batch_size=1000", "evaluation.personal_rounds=1")


def took(whole: Simulation, turn: Turn, folder: Path) -> dict[str, Any]:
    """Run a turn at the hospitals of the whole study, as the centre would; return its result."""
    folder.mkdir()
    if (begun := turn.checkpoint()) is not None:
        save_checkpoint(folder, begun)
    share_hospitals(folder, whole.folder)
    make_hospitals(composed(folder, STUDY), Progress(QUIET))
    hospitals = [hospital.name for hospital in whole.settings.virtual_hospitals()]
    run_engine(folder, turn.overrides, hospitals, whole.settings)
    return dict(read_json(folder / RESULT))


def test_an_ensemble_that_travelled_is_that_of_the_simulation(
    hospitals: Hospitals, tmp_path: Path
) -> None:
    hospitals.given(tmp_path / "whole", *STUDY)
    whole = composed(tmp_path / "whole", STUDY)
    simulated = carried_out(whole, True, QUIET)
    asked = travelling(whole.overrides)
    models = {}
    for site, turn in turns_of(Kind.OWN_MODELS, asked, SITES, simulated).items():
        assert took(whole, turn, tmp_path / site)["status"] == "completed"
        models[site] = read_tensors(tmp_path / site / MODEL)[0]
    ((name, turn),) = turns_of(Kind.ENSEMBLE, asked, SITES, simulated, models).items()
    ended = took(whole, turn, tmp_path / name)
    assert (ended["status"], ended["rounds"]) == ("completed", [])
    shift = with_turns(Kind.ENSEMBLE, simulated, {name: ended})["shift"]
    ours, theirs = shift["matrix"][ENSEMBLE], simulated["shift"]["matrix"][ENSEMBLE]
    assert set(ours) == set(theirs) == set(models)
    for site, cell in ours.items():
        assert (cell["status"], cell["n"]) == ("ok", theirs[site]["n"])
        assert cell["value"] == pytest.approx(theirs[site]["value"], abs=1e-6)
        own = simulated["shift"]["matrix"][f"local/{site}"][site]["value"]
        assert cell["value"] != pytest.approx(own, abs=1e-3)
    # The networks are other sites' own: no site keeps them.
    kept = list((tmp_path / name / "sites").glob("*/state/pages/*"))
    assert kept == []


def test_personal_models_that_travelled_are_those_of_the_simulation(
    hospitals: Hospitals, tmp_path: Path
) -> None:
    hospitals.given(tmp_path / "whole", *STUDY, *ONE_ORDER)
    whole = composed(tmp_path / "whole", (*STUDY, *ONE_ORDER))
    simulated = carried_out(whole, True, QUIET)
    federated = read_tensors(whole.folder / MODEL)[0]
    asked = travelling(whole.overrides)
    turns = turns_of(Kind.PERSONAL, asked, SITES, simulated, {FEDERATED: federated})
    ended = {site: took(whole, turn, tmp_path / site) for site, turn in turns.items()}
    assert {told["status"] for told in ended.values()} == {"completed"}
    ours = with_turns(Kind.PERSONAL, simulated, ended)["shift"]["matrix"]
    theirs = simulated["shift"]["matrix"]
    kept = personal_models_of(whole)
    for site in turns:
        row = f"personal/{site}"
        assert set(ours[row]) == set(turns)
        for at, cell in ours[row].items():
            assert (cell["status"], cell["n"]) == ("ok", theirs[row][at]["n"])
        travelled = read_tensors(tmp_path / site / MODEL)[0]
        assert apart(travelled, kept[site].state_dict()) < 1e-5
        assert apart(travelled, federated) > 0.1


def apart(one: State, other: State) -> float:
    return max(float((one[name] - other[name]).abs().max()) for name in one)


def test_a_turn_does_not_begin_with_other_weights_than_the_sites_approved(
    hospitals: Hospitals, tmp_path: Path
) -> None:
    hospitals.given(tmp_path / "whole", *STUDY)
    whole = composed(tmp_path / "whole", STUDY)
    simulated = carried_out(whole, True, QUIET)
    federated = read_tensors(whole.folder / MODEL)[0]
    asked = travelling(whole.overrides)
    turn = next(
        iter(turns_of(Kind.PERSONAL, asked, SITES, simulated, {FEDERATED: federated}).values())
    )
    others = replace(turn, begins_with={name: t + 1 for name, t in federated.items()})
    with pytest.raises(ValueError, match="names the weights of another study, and those here are"):
        took(whole, others, tmp_path / "others")
    with pytest.raises(ValueError, match="and none are here"):
        took(whole, replace(turn, begins_with=None), tmp_path / "none")
