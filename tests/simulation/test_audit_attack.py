import math
from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import multivariate_normal

from common.schema import SettingsError
from server.run import initial_network
from simulation import audit_attack
from simulation.audit import claimed_plan
from simulation.audit_attack import (
    Auditor,
    canaries_like,
    log_odds,
    off_the_rows,
    times_longer,
    with_canaries,
)
from tests.builders import PICTURES, PRIVATE, samples_of, study_from

RATE, CHANCE, NOISE = 0.4, 0.3, 0.7


def draws(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def rows_of(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=draws(seed), dtype=torch.float64)


@given(seed=st.integers(0, 1000), others=st.integers(0, 5), rate=st.sampled_from([0.1, 0.5, 1.0]))
def test_log_odds_are_those_of_the_gaussians_written_out(
    seed: int, others: int, rate: float
) -> None:
    canary_MP, other_OP = rows_of(seed, 3, 7), rows_of(seed + 1, others, 7)
    seen_P = rows_of(seed + 2, 7)
    found = log_odds(seen_P, canary_MP, other_OP, rate, CHANCE, NOISE)
    half = rate / 2
    for number in range(3):
        rest_MP = canary_MP[[k for k in range(3) if k != number]]
        mean = half * rest_MP.sum(0) + CHANCE * other_OP.sum(0)
        covariance = NOISE**2 * torch.eye(7) + CHANCE * other_OP.T @ other_OP
        covariance = covariance + half * (1 - half) * rest_MP.T @ rest_MP
        absent, drawn = (
            multivariate_normal.logpdf(seen_P.numpy(), at.numpy(), covariance.numpy())
            for at in (mean, mean + canary_MP[number])
        )
        expected = math.log((1 - rate) + rate * math.exp(drawn - absent))
        assert float(found[number]) == pytest.approx(expected, rel=1e-6, abs=1e-6)


@given(seed=st.integers(0, 1000), rows=st.integers(1, 8))
def test_what_no_row_points_to_is_the_residual_of_least_squares(seed: int, rows: int) -> None:
    matrix, vector = rows_of(seed, rows, 8), rows_of(seed + 1, 8)
    doubled = torch.cat([matrix, matrix[:1]])
    square, spare = off_the_rows(vector, doubled)
    fit = torch.linalg.lstsq(matrix.T, vector[:, None]).solution[:, 0]
    assert spare == 8 - rows
    assert square == pytest.approx(float((vector - fit @ matrix).square().sum()), abs=1e-8)


def test_a_sum_as_it_should_be_is_as_long_as_expected_and_an_unclipped_one_longer() -> None:
    canary_MP, other_OP = rows_of(0, 40, 60), rows_of(1, 30, 60)
    chosen = torch.rand(500, 70, generator=draws(2)) < torch.tensor([RATE / 2] * 40 + [CHANCE] * 30)
    sums = chosen.double() @ torch.cat([canary_MP, other_OP]) + NOISE * rows_of(3, 500, 60)
    squares = [times_longer(s, canary_MP, other_OP, RATE, CHANCE, NOISE) ** 2 for s in sums]
    # The variance of a draw is p (1 - p), not p: the expectation errs on the side of longer.
    assert 0.7 < sum(squares) / 500 < 1.0
    assert times_longer(50 * sums[0], canary_MP, other_OP, RATE, CHANCE, NOISE) > 10


def test_canaries_are_bright_spots_of_their_own_and_labels_are_chance() -> None:
    samples = samples_of([1, 1], size=32)
    canaries = canaries_like(samples, 400, 3, draws(0))
    assert canaries.images.shape == (400, 1, 32, 32)
    lit = (canaries.images != 0).flatten(1).sum(1)
    assert int(lit.min()) >= 1
    assert int(lit.max()) <= audit_attack.MOST_SPOTS * 4
    assert len(torch.unique(canaries.images.flatten(1), dim=0)) == 400
    assert torch.bincount(canaries.targets, minlength=3).min() > 100
    assert len(set(canaries.patients) | set(samples.patients)) == 402


def test_a_canary_has_any_of_several_labels_by_chance() -> None:
    samples = replace(samples_of([1, 1]), targets=torch.tensor([[0, 1, 0], [1, 0, 0]]))
    labels = canaries_like(samples, 400, 3, draws(0)).targets
    assert labels.shape == (400, 3)
    assert labels.unique().tolist() == [0, 1]
    assert ((labels.double().mean(0) - 0.5).abs() < 0.1).all()


def test_a_mask_of_a_canary_marks_some_of_its_spots() -> None:
    samples = samples_of([1], size=16)
    samples = replace(samples, targets=torch.zeros(1, 1, 16, 16, dtype=torch.long))
    canaries = canaries_like(samples, 50, 3, draws(0))
    assert canaries.targets.shape == (50, 1, 16, 16)
    assert set(canaries.targets.flatten().tolist()) == {0, 1, 2}
    assert not bool((canaries.targets > 0)[canaries.images <= 0].any())


@settings(max_examples=20)
@given(present=st.lists(st.booleans(), min_size=5, max_size=5))
def test_only_canaries_that_are_present_join_and_each_is_a_patient(present: Sequence[bool]) -> None:
    samples = samples_of([2, 3])
    canaries = canaries_like(samples, 5, 2, draws(1))
    joined = with_canaries(samples, canaries, present)
    assert joined.num_patients == 2 + sum(present)
    assert joined.images_each == [1] * sum(present) + [2, 3]
    assert torch.equal(joined.images[:5], samples.images)
    assert torch.equal(joined.images[5:], canaries.images[torch.tensor(present)])
    assert len(set(joined.volumes)) == len(joined.volumes)


def test_gradients_that_do_not_fit_into_memory_are_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(audit_attack, "MOST_BYTES", 1000)
    study, samples = study_from(*PICTURES, *PRIVATE), samples_of([1] * 4)
    canaries = canaries_like(samples, 20, 2, draws(0))
    plan = claimed_plan(study, samples)
    with pytest.raises(SettingsError, match=r"audit\.canaries=20"):
        Auditor(study, plan, samples, canaries, initial_network(study))
