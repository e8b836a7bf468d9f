from collections.abc import Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from common.control import add_correction, correction_of, next_own, parted, with_zero_controls

LR = 0.05
State = dict[str, torch.Tensor]


class Site:
    """A site whose loss is curvature/2 |w - optimum|^2: its gradient is known."""

    def __init__(self, curvature: float, optimum: float) -> None:
        self.curvature, self.optimum = curvature, optimum
        self.own: State = {"w": torch.zeros(1)}

    def round(self, start: torch.Tensor, everybodys: State, steps: int) -> torch.Tensor:
        """Train as client/training.py does and take the next variate; return the weights."""
        model = nn.Module()
        model.w = nn.Parameter(start.clone())
        correction = correction_of(model, everybodys, self.own)
        for _ in range(steps):
            model.w.grad = self.curvature * (model.w.detach() - self.optimum)
            add_correction(model, correction)
            with torch.no_grad():
                model.w -= LR * model.w.grad
        after = model.w.detach()
        self.own = next_own(everybodys, self.own, {"w": start}, {"w": after}, steps, LR)
        return after


def federated(sites: Sequence[Site], rounds: int, steps: int, corrected: bool) -> torch.Tensor:
    w, c = torch.zeros(1), {"w": torch.zeros(1)}
    for _ in range(rounds):
        w = torch.stack([site.round(w, c, steps) for site in sites]).mean(0)
        if corrected:
            c = {"w": torch.stack([site.own["w"] for site in sites]).mean(0)}
        else:
            for site in sites:
                site.own = {"w": torch.zeros(1)}
    return w


SITES = st.lists(st.tuples(st.floats(0.2, 4.0), st.floats(-3, 3)), min_size=2, max_size=5)


def best(about: Sequence[tuple[float, float]]) -> float:
    return sum(a * b for a, b in about) / sum(a for a, _ in about)


@settings(max_examples=30)
@given(about=SITES)
def test_with_many_local_steps_the_optimum_of_all_sites_is_reached(
    about: list[tuple[float, float]],
) -> None:
    found = federated([Site(*one) for one in about], rounds=300, steps=8, corrected=True)
    assert float(found) == pytest.approx(best(about), abs=2e-2)


def test_without_the_correction_the_sites_drift_apart() -> None:
    about = [(4.0, 1.0), (0.2, -3.0)]
    plain = federated([Site(*one) for one in about], rounds=300, steps=8, corrected=False)
    corrected = federated([Site(*one) for one in about], rounds=300, steps=8, corrected=True)
    assert abs(float(plain) - best(about)) > 0.1
    assert abs(float(corrected) - best(about)) < 1e-3


@given(about=SITES)
def test_with_one_local_step_it_is_ordinary_gradient_descent(
    about: list[tuple[float, float]],
) -> None:
    corrected = federated([Site(*one) for one in about], rounds=5, steps=1, corrected=True)
    plain = federated([Site(*one) for one in about], rounds=5, steps=1, corrected=False)
    assert float(corrected) == pytest.approx(float(plain), abs=1e-5)


def test_a_first_variate_is_the_mean_gradient_of_the_steps() -> None:
    site, start = Site(2.0, 1.0), torch.tensor([3.0])
    gradients, w = [], float(start)
    for _ in range(4):
        gradients.append(2.0 * (w - 1.0))
        w -= LR * gradients[-1]
    site.round(start, {"w": torch.zeros(1)}, 4)
    assert float(site.own["w"]) == pytest.approx(sum(gradients) / 4, rel=1e-5)


def test_variates_travel_under_names_of_their_own_and_come_apart_again() -> None:
    state = {"w": torch.ones(2), "running_mean": torch.ones(2), "count": torch.tensor(3)}
    whole = with_zero_controls(state, frozenset({"w"}))
    assert set(whole) == {*state, "control/w"}
    weights, controls = parted(whole)
    assert weights == state
    assert controls["w"].tolist() == [0.0, 0.0]


def test_what_does_not_travel_is_not_corrected() -> None:
    model = nn.Linear(2, 2)
    everybodys = {"weight": torch.ones(2, 2)}
    correction = correction_of(model, everybodys, {"weight": torch.zeros(2, 2)})
    assert correction[0].tolist() == [[1.0, 1.0], [1.0, 1.0]]
    assert correction[1].tolist() == [0.0, 0.0]
