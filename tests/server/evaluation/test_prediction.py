import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from common.contract import Profile
from common.tasks.task import Metric
from server.evaluation.prediction import drops_of, mixture_of, predicted_drop, scored

DICE = Metric(True, "", "overlap")


@given(st.integers(0, 1000), st.integers(4, 12))
def test_the_line_is_that_of_least_squares(seed: int, sites: int) -> None:
    draws = np.random.default_rng(seed)
    x, y = draws.random(sites), draws.random(sites)
    line = stats.linregress(x, y)
    told = predicted_drop(x.tolist(), y.tolist(), 0.7)
    assert told.drop == pytest.approx(line.intercept + 0.7 * line.slope)
    assert told.low < told.drop < told.high


def test_the_interval_holds_what_it_promises() -> None:
    draws = np.random.default_rng(0)
    held = 0
    for _ in range(2000):
        x = draws.random(6)
        y = 0.1 + 0.5 * x + draws.normal(0, 0.1, 6)
        told = predicted_drop(x[:5].tolist(), y[:5].tolist(), float(x[5]))
        held += told.low <= y[5] <= told.high
    assert held / 2000 == pytest.approx(0.95, abs=0.02)


@pytest.mark.parametrize("distances", [[0.1, 0.2], [0.3, 0.3, 0.3]])
def test_too_few_sites_give_no_line(distances: list[float]) -> None:
    with pytest.raises(ValueError, match="give no line"):
        predicted_drop(distances, [0.0] * len(distances), 0.5)


def test_a_drop_is_against_the_mean_of_the_others() -> None:
    values = {"a": 0.8, "b": 0.6, "c": 0.1}
    assert drops_of(values, DICE)["c"] == pytest.approx(0.6)
    assert drops_of(values, Metric(False, "mm", "distance"))["c"] == pytest.approx(-0.6)
    assert drops_of({"a": 0.8}, DICE) == {}


def test_a_mixture_is_the_profile_of_all_patients() -> None:
    one = Profile(patients=10, noise_std=0.3, parts={"x": [1.0, 0.0]})
    other = Profile(patients=30, noise_std=0.1, parts={"x": [0.0, 1.0]})
    both = mixture_of([one, other])
    assert both.patients == 40
    assert both.parts == {"x": [0.25, 0.75]}
    assert both.noise_std == pytest.approx(np.hypot(0.25 * 0.3, 0.75 * 0.1))


def test_each_site_is_predicted_by_a_line_that_does_not_know_it() -> None:
    distances = {f"s{i}": i / 10 for i in range(6)}
    drops = {site: 0.2 * far for site, far in distances.items()}
    drops["s5"] = 9.0
    told = scored(distances, drops)
    assert told["sites"]["s5"]["predicted"] == pytest.approx(0.1)
    assert not told["sites"]["s5"]["low"] <= 9.0 <= told["sites"]["s5"]["high"]
    assert told["covered"] < 6
    assert scored({"a": 0.1}, {"a": 0.2})["sites"] == {}
