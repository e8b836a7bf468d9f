import math
import re
from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from common.config import load_study
from common.schema import SettingsError
from common.tasks.registry import build_task
from common.tasks.survival import (
    SurvivalConfig,
    bounded_row,
    in_intervals,
    measure,
    patient_sums,
    restored,
    score,
)
from common.tasks.task import Sums

CUTS = (1.0, 2.0, 4.0)
CONFIG = SurvivalConfig(name="survival", cuts=list(CUTS), out_channels=3)
ROWS = st.lists(
    st.tuples(st.floats(0.0, 5.0), st.booleans(), st.floats(0.02, 0.9)), min_size=2, max_size=12
)


def patient(time: float, event: bool, hazard: float, truth: float = math.nan) -> Sums:
    target = torch.tensor([time, float(event), truth])
    record = measure(torch.full((3,), hazard), target, ())
    return patient_sums([record], CUTS, not math.isnan(truth))


def added(rows: list[Sums]) -> Sums:
    return {key: np.sum([row[key] for row in rows], axis=0) for key in rows[0]}


def naive(rows: list[tuple[float, bool, float]]) -> float:
    """Return Harrell's C by its definition; nobody is followed beyond the last cut."""
    pairs = agree = 0.0
    followed = [(min(t, CUTS[-1]), event and t <= CUTS[-1], risk) for t, event, risk in rows]
    for (first, event, ours), (second, also, theirs) in product(followed, followed):
        if event and (first < second or (first == second and not also)):
            pairs += 1
            agree += (ours > theirs) + (ours == theirs) / 2
    return agree / pairs if pairs else math.nan


@given(
    rows=st.lists(
        st.tuples(
            # Steps as wide as a bin of time, and hazards that are in risk bins of their own.
            st.integers(1, 40).map(lambda step: step / 8),
            st.booleans(),
            st.sampled_from([0.02, 0.1, 0.3, 0.5, 0.7, 0.9]),
        ),
        min_size=2,
        max_size=12,
    )
)
def test_the_c_index_is_that_of_all_pairs(rows: list[tuple[float, bool, float]]) -> None:
    found = score(added([patient(*row) for row in rows]))["c_index"]
    assert found == pytest.approx(naive(rows), nan_ok=True)


def test_an_event_at_the_last_cut_comes_before_whoever_lives_on() -> None:
    rows = [patient(4.0, True, 0.5), patient(5.0, False, 0.1), patient(6.0, True, 0.3)]
    assert score(added(rows))["c_index"] == 1.0
    assert added(rows)["events"].sum() == 1


@pytest.mark.parametrize("logit", [-40.0, 40.0])
def test_no_answer_of_many_intervals_stops_an_evaluation(logit: float) -> None:
    cuts = [float(end) for end in range(1, 61)]
    task = build_task(SurvivalConfig(name="survival", cuts=cuts, out_channels=60))
    hazards = task.activate(torch.full((1, 60), logit))[0]
    sums = task.patient_sums([task.measure(hazards, torch.tensor([7.5, 1.0, math.nan]), ())])
    (place,) = sums["events"].sum(0).nonzero()[0]
    assert place == (0 if logit < 0 else 255)


@given(rows=ROWS)
def test_the_sums_of_two_sites_are_those_of_the_union(
    rows: list[tuple[float, bool, float]],
) -> None:
    sums = [patient(*row) for row in rows]
    parts = added([added(sums[:1]), added(sums[1:])])
    assert score(parts) == pytest.approx(score(added(sums)), nan_ok=True)


def test_the_likelihood_is_that_of_the_definition_interval_by_interval() -> None:
    hazards = torch.tensor([0.1, 0.3, 0.2])
    task = build_task(CONFIG)
    logits = hazards.logit()[None]
    cases = {
        (0.5, 1.0): 0.1,
        (1.0, 1.0): 0.1,
        (1.5, 1.0): 0.9 * 0.3,
        (3.9, 1.0): 0.9 * 0.7 * 0.2,
        (9.0, 1.0): 0.9 * 0.7 * 0.8,
        (0.2, 0.0): 1.0,
        (1.4, 0.0): 0.9,
        (1.6, 0.0): 0.9 * 0.7,
        (9.0, 0.0): 0.9 * 0.7 * 0.8,
    }
    for (time, event), likelihood in cases.items():
        target = torch.tensor([[time, event, math.nan]])
        assert float(task.loss(logits, target)) == pytest.approx(-math.log(likelihood), abs=1e-5)
        record = measure(hazards, target[0], ())
        told = score(patient_sums([record], CUTS, False))["nll"]
        assert told == pytest.approx(-math.log(likelihood), abs=1e-5)


@given(time=st.floats(0.0, 9.0), event=st.booleans())
def test_an_event_is_in_one_interval_at_most_and_nobody_is_free_after_it(
    time: float, event: bool
) -> None:
    lived, at = in_intervals(torch.tensor([[time, float(event)]]), torch.tensor(CUTS))
    assert float(at.sum()) == (event and np.float32(time) <= CUTS[-1])
    assert not (lived * at).any()
    assert bool((lived[:, 1:] <= lived[:, :-1]).all())


def test_a_patient_counts_once_however_many_images_there_are() -> None:
    target = torch.tensor([2.0, 1.0, math.nan])
    low, high = (measure(torch.full((3,), h), target, ()) for h in (0.2, 0.4))
    sums = patient_sums([low, high], CUTS, False)
    assert sums["events"].sum() + sums["censored"].sum() == 1
    expected = patient(2.0, True, 0.3)
    np.testing.assert_array_equal(sums["events"], expected["events"])


def test_true_risks_are_ranked_beside_the_models() -> None:
    rows = [patient(1.0, True, 0.1, truth=2.0), patient(3.0, True, 0.5, truth=-1.0)]
    values = score(added(rows))
    assert (values["c_index"], values["c_index_truth"]) == (0.0, 1.0)


@given(rows=ROWS)
def test_rows_are_bounded_and_totals_without_noise_are_possible(
    rows: list[tuple[float, bool, float]],
) -> None:
    sensitivity = build_task(CONFIG).bounded.sensitivity
    bounded = [bounded_row(patient(*row)) for row in rows]
    for a, b in product(bounded, bounded):
        assert np.linalg.norm(a["table"] - b["table"]) <= sensitivity + 1e-12
    total = restored(added(bounded), len(rows))
    assert total["events"].sum() + total["censored"].sum() == pytest.approx(len(rows))
    assert total["events"].sum() == pytest.approx(
        sum(event and np.float32(time) <= CUTS[-1] for time, event, _ in rows)
    )
    assert score(total).keys() == {"c_index"}


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ("task.cuts=[2,1]", "each above the one before"),
        ("task.cuts=[1,2]", "do not fit 2 intervals"),
        ("task.cuts=[1,2,3,4,inf]", "are no ends of intervals"),
        ("task.time_column=event", "name a column twice"),
        ("data.covariates={age: [0, 90], time: [0, 6]}", "data.covariates has time, which"),
        ("data.covariates={event: [0, 1]}", "data.covariates has event, which"),
        ("task.headline=auroc", "task.headline='auroc'"),
        ("task.headline=c_index_truth", "task.headline='c_index_truth'"),
        ("task.loss={name: focal}", "task.loss.name='focal'"),
    ],
)
def test_settings_that_do_not_fit_are_named(setting: str, told: str) -> None:
    with pytest.raises(SettingsError, match=re.escape(told)):
        load_study(["model=cnn", "task=survival", setting])


def test_the_true_risk_is_no_covariate() -> None:
    with pytest.raises(SettingsError, match="covariates has log_hazard, which"):
        load_study(["experiment=virtual_survival", "data.covariates={log_hazard: [-5, 5]}"])
