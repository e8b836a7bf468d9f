"""Over messages alone an ensemble of the sites' own models is what a simulation makes of them."""

from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from common.config import travelling
from common.files import read_json
from common.tensor_files import read_tensors
from server.checkpoint import save_checkpoint
from server.evaluation.shift import ENSEMBLE
from server.progress import Progress
from server.run import MODEL, RESULT
from server.turns import Kind, Turn, together, turns_of, with_turns
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
    "evaluation.personal_rounds=0",
    "simulation.engine=inprocess",
)


def took(whole: Simulation, turn: Turn, folder: Path) -> dict[str, Any]:
    """Run a turn at the hospitals of the whole study, as the centre would; return its result."""
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
    for site, turn in turns_of(Kind.OWN_MODELS, asked, simulated).items():
        assert took(whole, turn, tmp_path / site)["status"] == "completed"
        models[site] = read_tensors(tmp_path / site / MODEL)[0]
    ((name, turn),) = turns_of(Kind.ENSEMBLE, asked, simulated).items()
    (tmp_path / name).mkdir()
    save_checkpoint(tmp_path / name, together(turn, models))
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
