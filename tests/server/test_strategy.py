from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from common.contract import Estimate
from common.strategy_config import ServerOptimizerConfig, StrategyConfig
from common.tasks.task import Metric
from server.records import RoundRecord
from server.strategy import Strategy
from tests.builders import site_round

MODEL = {"w": torch.zeros(2, dtype=torch.float32)}


def strategy(**settings: object) -> Strategy:
    return Strategy(StrategyConfig(**settings), 0, frozenset({"w"}))  # type: ignore[arg-type]


DICE = Metric(higher_is_better=True, unit="", meaning="overlap")
DISTANCE = Metric(higher_is_better=False, unit="mm", meaning="distance", high=100.0)


def told(value: float | None) -> Estimate:
    return Estimate(value=value, low=None, high=None, n=9)


@pytest.mark.parametrize(("weight_by", "mean"), [("patients", 3.0), ("uniform", 2.0)])
def test_updates_are_weighted_as_the_study_says(
    tmp_path: Path, weight_by: str, mean: float
) -> None:
    ours = strategy(weight_by=weight_by)
    updates = [
        ({"w": np.full(1, value, np.float32)}, ours.weight(patients, told(0.5), DICE))
        for value, patients in ((0, 1), (4, 3))
    ]
    combined = ours.combine(iter(updates), tmp_path)
    assert combined is not None
    assert float(combined["w"]) == mean


@pytest.mark.parametrize(
    ("combine", "faulty", "expected"),
    [("median", 2, 2.0), ("trimmed_mean", 1, 7.0 / 3), ("krum", 1, 1.0)],
)
def test_a_robust_way_stands_a_far_update_whatever_it_says_it_counts_for(
    tmp_path: Path, combine: str, faulty: int, expected: float
) -> None:
    ours = strategy(combine=combine, faulty=faulty, quorum=5, weight_by="uniform")
    updates = [({"w": np.full(1, v, np.float32)}, 1.0) for v in (0.0, 1.0, 2.0, 4.0)]
    far = ({"w": np.full(1, 1e20, np.float32)}, 1e9)
    combined = ours.combine(iter([*updates, far]), tmp_path)
    assert combined is not None
    assert float(combined["w"]) == pytest.approx(expected)
    assert ours.combine(iter(updates), tmp_path) is None


@given(q=st.floats(0.1, 5), values=st.tuples(st.floats(0, 1), st.floats(0, 1)).map(sorted))
def test_with_q_a_site_where_the_model_is_worse_counts_for_no_less(
    q: float, values: list[float]
) -> None:
    fair = strategy(fairness_q=q)
    bad, good = (fair.weight(10, told(value), DICE) for value in values)
    assert bad >= good > 0
    near, far = (fair.weight(10, told(100 * value), DISTANCE) for value in values)
    assert far >= near > 0


def test_the_weight_is_the_gradients_of_q_ffl() -> None:
    # F_1 = 0.2 and F_2 = 0.4 with q = 2: as 1 to 4, times the patients.
    fair = strategy(fairness_q=2.0)
    one, two = fair.weight(10, told(0.8), DICE), fair.weight(5, told(0.6), DICE)
    assert two / one == pytest.approx(2.0)
    assert fair.weight(10, None, DICE) == fair.weight(10, told(0.5), DICE)
    assert strategy().weight(10, told(0.1), DICE) == 10.0


def test_with_q_the_worst_of_two_sites_ends_better_than_with_the_plain_mean(
    tmp_path: Path,
) -> None:
    # The sites' losses are (w - b)^2 / 10 with b = 0 for nine tenths of the patients, else b = 1.
    def ended(q: float | None) -> float:
        ours, w = strategy(fairness_q=q), 0.5
        for _ in range(200):
            losses = [(w - b) ** 2 / 10 for b in (0.0, 1.0)]
            weights = [
                ours.weight(n, told(1 - loss), DICE) for n, loss in zip((9, 1), losses, strict=True)
            ]
            steps = [w - 0.2 * (w - b) for b in (0.0, 1.0)]
            updates = [({"w": np.full(1, step)}, w) for step, w in zip(steps, weights, strict=True)]
            combined = ours.combine(iter(updates), tmp_path)
            assert combined is not None
            w = float(combined["w"])
        return w

    assert ended(None) == pytest.approx(0.1, abs=1e-3)
    # d/dw sum_k p_k F_k^2 = 0 with q = 1: 9 w^3 = (1 - w)^3.
    assert ended(1.0) == pytest.approx(1 / (1 + 9 ** (1 / 3)), abs=1e-3)


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


def test_with_an_agnostic_step_the_sites_where_the_model_was_bad_come_to_count_for_more() -> None:
    ours, patients = strategy(agnostic_step=0.5), {"st-a": 30, "st-b": 10}
    assert ours.shares(patients, [], 9, ("dice", DICE)) == {"st-a": 0.75, "st-b": 0.25}
    rounds = [
        RoundRecord(
            round=number,
            seconds=1.0,
            participants=["st-a", "st-b"],
            missing={},
            sites={
                "st-a": site_round(before={"dice": told(0.9)}),
                "st-b": site_round(before={"dice": told(b)}),
            },
        )
        for number, b in ((1, 0.5), (2, 0.7), (3, None))
    ]
    # Losses 0.1 and 0.5, then 0.1 and 0.3; of the third round one alone is known.
    shares = ours.shares(patients, rounds, 9, ("dice", DICE))
    assert shares == pytest.approx({"st-a": 0.6, "st-b": 0.4})
    assert ours.weight(30, told(0.9), DICE, shares["st-a"]) == shares["st-a"]
    assert strategy().shares(patients, rounds, 9, ("dice", DICE)) == {}
