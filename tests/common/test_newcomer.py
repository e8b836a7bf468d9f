"""What a hospital that has not joined may expect is what least squares promises."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from common.contract import Profile
from common.newcomer import MEASURE, Joined, Shown, far, joined_told, predicted_drop


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


def of(*blocks: float, noise_std: float = 0.0) -> Profile:
    return Profile(patients=20, noise_std=noise_std, parts={MEASURE: list(blocks)})


SITES = {"a": Shown(0.1, 0.0), "b": Shown(0.2, 0.1), "c": Shown(0.4, 0.3)}
JOINED = Joined(everybody=of(0.0, 0.0), sites=SITES, mean=0.7)


def test_a_newcomer_is_told_what_the_line_says_at_its_distance() -> None:
    found = JOINED.expected(of(0.06, 0.08))
    assert found.distance == pytest.approx(far(of(0.06, 0.08), of(0.0, 0.0)))
    assert found.distance == pytest.approx(0.2)
    assert found.predicted.drop == pytest.approx(0.1)
    assert (found.nearest, found.furthest, found.mean) == (0.1, 0.4, 0.7)
    assert not found.beyond
    assert JOINED.expected(of(0.3, 0.0)).beyond


def test_images_in_other_blocks_are_refused() -> None:
    with pytest.raises(ValueError, match="in 2 blocks, these are in 3"):
        JOINED.expected(of(0.1, 0.1, 0.1))


def test_what_stands_in_a_result_is_what_was_told() -> None:
    noisy = Joined(everybody=of(0.1, 0.2, noise_std=0.01), sites=SITES, mean=0.7)
    assert joined_told(noisy.told()) == noisy


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"images": None}, "another form"),
        ({"sites": {"a": 1}}, "another form"),
        ({"patients": 0}, "another form"),
        ({"measure": "mmd"}, "measure=mmd is not appearance"),
    ],
)
def test_a_result_of_another_form_is_refused(changes: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        joined_told({**JOINED.told(), **changes})


def test_noise_on_the_sites_images_makes_nobody_look_further_away() -> None:
    draws, std = np.random.default_rng(0), 0.05
    own, squares = of(*[0.02] * 36), []
    for _ in range(400):
        noised = of(*draws.normal(0.0, std, 36), noise_std=std)
        squares.append(far(own, noised) ** 2)
    # Cut at 0, so a little above; uncorrected it would be 0.36 more.
    assert np.mean(squares) == pytest.approx(far(own, of(*[0.0] * 36)) ** 2, abs=0.03)
