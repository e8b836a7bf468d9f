"""Two federated, private rounds of every strategy: each trains, and costs what FedAvg costs."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from common.finished import study_in
from common.tensor_files import read_tensors
from configs import CONFIG_FOLDER
from server.run import MODEL, initial_network
from tests.integration.test_every_task import PRIVATE, SMALL_CNN, listed, run

SITES = ("a", "b", "c", "d", "e")
"""As many as Krum takes to stand one that is faulty."""
STRATEGIES = sorted(path.stem for path in (CONFIG_FOLDER / "strategy").glob("*.yaml"))
OTHERS = [f"strategy={name}" for name in STRATEGIES if name != "fedavg"] + ["evaluation=ditto"]
SGD = ("training.optimizer=sgd", "training.lr=0.5", "training.local_steps=2", "rounds=2")

Ran = tuple[dict[str, Any], dict[str, Tensor]]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    classes = {"label": lambda site, k: ("normal", "bright")[k > (1 if site < "c" else 2)]}
    return listed(tmp_path_factory.mktemp("data"), classes, patients=4, sites=SITES)


def ran(folder: Path, data: Path, asked: str) -> Ran:
    named = ("task=classification", "task.classes=[normal,bright]")
    settings = (*named, *SMALL_CNN, *PRIVATE, *SGD, asked)
    result = run(folder, data, *settings, label="label")
    assert result["status"] == "completed", result["reason"]
    return result, read_tensors(folder / MODEL)[0]


@pytest.fixture(scope="module")
def fedavg(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Ran:
    return ran(tmp_path_factory.mktemp("fedavg"), data, "strategy=fedavg")


@pytest.mark.parametrize("asked", OTHERS)
def test_it_trains_with_privacy_at_the_price_of_fedavg(
    asked: str, data: Path, fedavg: Ran, tmp_path: Path
) -> None:
    plain, theirs = fedavg
    result, ours = ran(tmp_path, data, asked)
    assert all(record["participants"] == list(SITES) for record in result["rounds"])
    epsilons = {site: account["epsilon"] for site, account in result["privacy"].items()}
    assert epsilons == {site: account["epsilon"] for site, account in plain["privacy"].items()}
    assert all(tensor.isfinite().all() for tensor in ours.values())
    assert set(ours) == set(theirs)
    start = initial_network(study_in(result, tmp_path)).state_dict()
    assert any(not torch.equal(start[name], tensor) for name, tensor in ours.items())
    told = result.get("shift", {}).get("matrix", {})
    assert ("personal" in told) == (asked == "evaluation=ditto")
