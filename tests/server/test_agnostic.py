import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.agnostic import ascended
from server.generalisation import LEAST

SITES = ("st-a", "st-b", "st-c")
SHARES = st.tuples(*[st.floats(0.01, 1.0)] * 3).map(
    lambda values: {s: v / sum(values) for s, v in zip(SITES, values, strict=True)}
)
LOSSES = st.tuples(*[st.floats(0.0, 1.0)] * 3).map(
    lambda values: dict(zip(SITES, values, strict=True))
)


@given(shares=SHARES, losses=LOSSES, step=st.floats(0.01, 2.0))
def test_shares_stay_shares_and_climb(
    shares: dict[str, float], losses: dict[str, float], step: float
) -> None:
    after = ascended(shares, losses, step)
    assert sum(after.values()) == pytest.approx(1.0)
    assert min(after.values()) > 0

    def worst_case(of: dict[str, float]) -> float:
        return sum(of[site] * losses[site] for site in SITES)

    assert worst_case(after) >= worst_case(shares) - 3 * LEAST


def test_inside_the_simplex_a_step_is_the_loss_about_its_mean() -> None:
    shares = {"st-a": 0.5, "st-b": 0.3, "st-c": 0.2}
    after = ascended(shares, {"st-a": 0.1, "st-b": 0.4, "st-c": 0.7}, 0.5)
    assert after == pytest.approx({"st-a": 0.35, "st-b": 0.3, "st-c": 0.35})
    # Of whom nothing is known moves with the mean.
    assert ascended(shares, {"st-a": 0.1, "st-c": 0.7}, 0.5) == pytest.approx(after)
    assert ascended(shares, {}, 0.5) == pytest.approx(shares)


def test_a_share_that_would_fall_below_none_is_the_least() -> None:
    after = ascended({"st-a": 0.1, "st-b": 0.9}, {"st-a": 0.0, "st-b": 1.0}, 1.0)
    assert after == pytest.approx({"st-a": LEAST, "st-b": 1.0}, rel=2e-3)


def test_the_mean_model_of_the_rounds_is_as_good_at_the_worst_site_as_any_model_can_be() -> None:
    # Sites at 0 and 3, of which the first has nearly all patients: (w - 0)^2 and (w - 3)^2.
    places = {"st-a": 0.0, "st-b": 3.0}
    shares, w, seen = {"st-a": 0.95, "st-b": 0.05}, 0.0, []
    for _ in range(4000):
        losses = {site: (w - place) ** 2 for site, place in places.items()}
        gradient = sum(shares[site] * 2 * (w - place) for site, place in places.items())
        w, shares = w - 0.01 * gradient, ascended(shares, losses, 0.001)
        seen.append(w)
    assert np.mean(seen) == pytest.approx(1.5, abs=0.05)
