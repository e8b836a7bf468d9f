from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from client.own_models import PERSONAL_MODEL
from common.contract import LOCAL, PERSONAL
from simulation.run import composed
from simulation.show import carried_out
from tests.hospitals import Hospitals

QUIET = Console(quiet=True)
STUDY = (
    "experiment=smoke",
    "privacy=none",
    "rounds=1",
    "evaluate_every=1",
    "training.lr=0.02",
    "training.local_epochs=4",
    "evaluation=shift",
    "evaluation.personal_rounds=3",
    "simulation.engine=inprocess",
)


@pytest.fixture(scope="module")
def matrix(tmp_path_factory: pytest.TempPathFactory, hospitals: Hospitals) -> dict[str, Any]:
    folder: Path = tmp_path_factory.mktemp("compared") / "run"
    hospitals.given(folder, *STUDY)
    found: dict[str, Any] = carried_out(composed(folder, STUDY), True, QUIET)["shift"]["matrix"]
    assert len(list(folder.glob(f"sites/*/state/{PERSONAL_MODEL}"))) == 2
    return found


@pytest.mark.parametrize("kind", [LOCAL, PERSONAL])
def test_a_sites_model_is_at_home_what_the_site_told_and_is_asked_everywhere(
    matrix: dict[str, Any], kind: str
) -> None:
    sites = set(matrix["federated"])
    assert sites == {"north", "south"}
    for site in sites:
        row = matrix[f"{kind}/{site}"]
        assert set(row) == sites
        assert {cell["status"] for cell in row.values()} == {"ok"}
        assert row[site]["value"] == pytest.approx(matrix[kind][site]["value"], abs=1e-6)
        assert row[site]["n"] == matrix[kind][site]["n"]


def test_a_personal_model_is_no_other_model(matrix: dict[str, Any]) -> None:
    for site in matrix["federated"]:
        own = matrix[f"{PERSONAL}/{site}"][site]["value"]
        for other in ("federated", LOCAL):
            assert own != pytest.approx(matrix[other][site]["value"], abs=1e-6)
