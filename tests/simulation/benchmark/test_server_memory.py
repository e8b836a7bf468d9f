from pathlib import Path

import pytest
import torch

from common.config import load_study
from common.files import read_json
from common.tensor_files import read_tensors
from server.run import MODEL, RESULT, initial_network
from server.weights import DOWN, FOLDER, UP
from simulation.benchmark.server_memory import BASE_MB, CASES, Case, run_case

CASE = Case(3, 2, BASE_MB)


def test_every_site_hands_in_the_model_that_came_and_nothing_is_left_beside(tmp_path: Path) -> None:
    run_case(CASE, tmp_path)
    result = read_json(tmp_path / RESULT)
    assert [record["participants"] for record in result["rounds"]] == [["0000", "0001", "0002"]] * 2
    untrained = initial_network(load_study(CASE.overrides())).state_dict()
    weights, _ = read_tensors(tmp_path / MODEL)
    assert all(torch.equal(weights[name], untrained[name]) for name in weights)
    assert list((tmp_path / FOLDER / UP).iterdir()) == []
    assert len(list((tmp_path / FOLDER / DOWN).iterdir())) == 1


def test_each_case_has_a_base_of_as_many_sites_before_it() -> None:
    seen = set()
    for case in CASES:
        if case.mb == BASE_MB:
            seen.add(case.sites)
        assert case.sites in seen


def test_a_study_that_no_site_can_answer_is_no_measurement(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / FOLDER / UP / "0001").mkdir(parents=True)
    with pytest.raises(RuntimeError, match="ended as partial"):
        run_case(CASE, tmp_path)
