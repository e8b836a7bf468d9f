import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from common.schema import SettingsError
from simulation.run import composed
from simulation.scenario import arrival, poisoned, why_absent
from simulation.scenario_config import ScenarioConfig

SITES = [f"hospital-{n}" for n in range(20)]
SMALL = hnp.arrays(np.float32, st.integers(1, 6), elements=st.floats(-100, 100, width=32))


def absent(scenario: ScenarioConfig, rounds: int = 50, base: int = 0) -> NDArray[Any]:
    """Who misses which round, [rounds, sites]."""
    return np.array(
        [
            [
                bool(why_absent(scenario, base, site, number, place))
                for place, site in enumerate(SITES)
            ]
            for number in range(1, rounds + 1)
        ]
    )


def test_sites_drop_out_as_often_as_the_chance_says_and_each_draw_has_its_seed() -> None:
    found = absent(ScenarioConfig(drop_out=0.2))
    # 1,000 draws: four standard deviations.
    assert abs(found.mean() - 0.2) < 4 * math.sqrt(0.2 * 0.8 / found.size)
    assert (found == absent(ScenarioConfig(drop_out=0.2))).all()
    assert (found != absent(ScenarioConfig(drop_out=0.2), base=1)).any()
    assert not absent(ScenarioConfig()).any()
    assert absent(ScenarioConfig(drop_out=1.0)).all()


def test_a_site_that_is_slow_misses_the_deadline_more_often() -> None:
    scenario = ScenarioConfig(answer_s=60.0, deadline_s=60.0, slow={SITES[3]: 100.0})
    found = absent(scenario)
    # The median is the deadline, so half of the others' answers come too late.
    others = np.delete(found, 3, axis=1)
    assert abs(others.mean() - 0.5) < 4 * math.sqrt(0.25 / others.size)
    assert found[:, 3].all()
    why = why_absent(scenario, 0, SITES[3], 1, 3)
    assert why.startswith("would have answered after")
    assert why.endswith("the round ends after 60 s")


def test_sites_arrive_and_leave_in_the_rounds_that_are_given() -> None:
    found = absent(ScenarioConfig(arrive={SITES[0]: 5}, leave={SITES[0]: 7, SITES[1]: 1}), rounds=8)
    assert found[:, 0].tolist() == [True] * 4 + [False] * 2 + [True] * 2
    assert found[:, 1].all()
    assert not found[:, 2:].any()


def test_sites_arrive_one_after_another_at_the_rate_that_is_given() -> None:
    first = [arrival(0.5, base, 0) for base in range(5)]
    assert set(first) == {1}
    nine = np.array([arrival(0.5, base, 9) for base in range(400)])
    # Nine exponential times of mean 2 rounds, cut to whole rounds.
    assert abs(nine.mean() - (1 + 18 - 0.5)) < 4 * math.sqrt(9 * 4 / 400)
    for base in range(5):
        rounds = [arrival(0.5, base, place) for place in range(20)]
        assert rounds == sorted(rounds)
    found = absent(ScenarioConfig(arrivals_per_round=0.5))
    assert (np.diff(found.astype(int), axis=0) <= 0).all()


@given(SMALL, st.floats(0.5, 20), st.integers(0, 9))
def test_a_poisoned_step_is_so_many_times_as_long(
    step: NDArray[Any], strength: float, start: int
) -> None:
    before: dict[str, Any] = {"w": np.arange(len(step), dtype=np.float64), "n": np.array(3)}
    after = {"w": before["w"] + step, "n": np.array(7)}

    def moved(kind: str) -> NDArray[Any]:
        found = poisoned(kind, strength, before, after, np.random.default_rng(start))
        assert found["n"] == 7
        return np.asarray(found["w"] - before["w"])

    assert moved("boosted") == pytest.approx(strength * step, rel=1e-6, abs=1e-9)
    assert moved("flipped") == pytest.approx(-strength * step, rel=1e-6, abs=1e-9)
    length = strength * float(np.linalg.norm(step.astype(np.float64)))
    assert float(np.linalg.norm(moved("noise"))) == pytest.approx(length, rel=1e-6, abs=1e-9)
    assert (moved("noise") == moved("noise")).all()


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"drop_out": 1.5}, "simulation.scenario.drop_out=1.5"),
        ({"answer_s": 3.0}, "give answer_s and deadline_s together"),
        ({"slow": {"a": 2.0}}, "give answer_s and deadline_s together"),
        ({"poisoned": {"a": "lies"}}, "simulation.scenario.poisoned.a='lies'"),
        ({"arrive": {"a": 0}}, "simulation.scenario.arrive.a=0"),
        ({"strength": 0.0}, "simulation.scenario.strength=0"),
    ],
)
def test_an_impossible_scenario_is_named(settings: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        ScenarioConfig(**settings)


def test_a_scenario_is_checked_before_any_hospital_is_made(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"simulation\.scenario\.drop_out=2"):
        composed(tmp_path / "run", ["experiment=smoke", "simulation.scenario={drop_out:2}"])
