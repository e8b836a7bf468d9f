import numpy as np
import pytest
import torch

from common.study import ServerOptimizerConfig, StrategyConfig
from server.strategy import Strategy

MODEL = {"w": torch.zeros(2, dtype=torch.float32)}


def strategy(**settings: object) -> Strategy:
    return Strategy(StrategyConfig(**settings), 0, frozenset({"w"}))  # type: ignore[arg-type]


@pytest.mark.parametrize(("weight_by", "mean"), [("patients", 3.0), ("uniform", 2.0)])
def test_updates_are_weighted_as_the_study_says(weight_by: str, mean: float) -> None:
    updates = [({"w": np.zeros(1, np.float32)}, 1), ({"w": np.full(1, 4, np.float32)}, 3)]
    combined = strategy(weight_by=weight_by).combine(iter(updates))
    assert combined is not None
    assert float(combined["w"]) == mean


def test_the_step_is_the_server_optimisers() -> None:
    half = strategy(server_optimizer=ServerOptimizerConfig(lr=0.5))
    model, _ = half.step(MODEL, {"w": torch.ones(2).double()}, {})
    assert model["w"].tolist() == [0.5, 0.5]


def test_the_cohort_is_a_share_of_the_sites() -> None:
    assert len(strategy(fraction=0.5).cohort(["st-a", "st-b", "st-c"], 1)) == 2


@pytest.mark.parametrize(("averaged", "counted"), [(None, 1), (1, 1), (2, 2), (4, 4), (9, 4)])
def test_the_final_model_is_the_mean_of_the_last_rounds(averaged: int | None, counted: int) -> None:
    ours, rounds = strategy(averaged_rounds=averaged), 4
    models = [
        {"w": torch.tensor([float(r), r**2]), "n": torch.tensor(r)} for r in range(1, rounds + 1)
    ]
    sums: dict[str, torch.Tensor] = {}
    for number, model in enumerate(models, start=1):
        sums = ours.summed(sums, model, rounds - number)
    final = ours.final(models[-1], sums, rounds)
    last = torch.stack([model["w"] for model in models[-counted:]])
    assert torch.equal(final["w"], last.double().mean(0).float())
    # Counters and statistics are not parameters.
    assert final["n"] == rounds
