import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from common.seeding import generator
from common.tasks.config import LossConfig
from common.tasks.contrastive import (
    LEAST_AREA,
    WORST,
    beside_a_view,
    bounded_row,
    measure,
    nt_xent,
    patient_sums,
    restored,
    score,
    two_views,
    view,
)
from common.tasks.pretraining import PretrainingConfig
from common.tasks.registry import build_task
from common.tasks.task import Sums

CONTRASTIVE = PretrainingConfig(
    name="pretraining", method="contrastive", out_channels=3, hidden_share=None, patch=None
)
NO_TARGET = torch.tensor(0)


def images(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=generator(0))


def by_two_loops(pairs: torch.Tensor, temperature: float) -> float:
    """Return Chen et al., Eq. 1 and Algorithm 1, a view after the other."""
    views = [part for pair in pairs for part in pair.chunk(2)]
    total = 0.0
    for i, one in enumerate(views):
        weights = [
            math.exp(float(F.cosine_similarity(one, other, dim=0)) / temperature)
            for k, other in enumerate(views)
            if k != i
        ]
        partner = views[i + 1 if i % 2 == 0 else i - 1]
        alike = float(F.cosine_similarity(one, partner, dim=0)) / temperature
        total -= alike - math.log(sum(weights))
    return total / len(views)


@given(
    count=st.integers(1, 5),
    numbers=st.integers(1, 4),
    temperature=st.floats(0.1, 2.0),
    seed=st.integers(0, 99),
)
def test_the_loss_is_that_of_the_naive_double_loop(
    count: int, numbers: int, temperature: float, seed: int
) -> None:
    pairs = torch.randn(count, 2 * numbers, generator=generator(seed), dtype=torch.float64)
    loss = nt_xent(LossConfig(name="nt_xent", temperature=temperature), numbers)
    expected = by_two_loops(pairs, temperature)
    assert float(loss(pairs, NO_TARGET)) == pytest.approx(expected, abs=1e-9)


def test_who_tells_pairs_apart_has_less_loss_than_who_says_the_same_of_all() -> None:
    loss = build_task(CONTRASTIVE).loss
    same, apart = torch.ones(3, 6), torch.eye(3).repeat(1, 2)
    assert float(loss(same, NO_TARGET)) == pytest.approx(math.log(5))
    assert float(loss(apart, NO_TARGET)) < math.log(5)


@pytest.mark.parametrize("shape", [(5, 2, 12, 10), (3, 2, 8, 6, 7)])
def test_views_are_drawn_by_the_generator_and_leave_what_is_missing(
    shape: tuple[int, ...],
) -> None:
    clean = images(*shape)
    clean[0, 1] = 0
    first, again, other = (view(clean, generator(seed)) for seed in (1, 1, 2))
    assert first.shape == clean.shape
    assert torch.equal(first, again)
    assert not first[0, 1].any()
    assert all(not torch.equal(a, b) for a, b in zip(first, other, strict=True))
    assert len(view(clean[:0], generator(0))) == 0


def test_a_view_is_a_part_of_the_image_and_half_of_them_are_mirrored(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("CONTRAST", "BRIGHTNESS", "NOISE"):
        monkeypatch.setattr(f"common.tasks.contrastive.{name}", 0.0)
    side = 32
    ramps = torch.stack(torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij"))
    # Both ramps begin at 1, so that no voxel beyond the image, which would be 0, could hide.
    seen = view((ramps + 1.0).expand(400, -1, -1, -1), generator(0))
    assert float(seen.min()) >= 0.5
    assert float(seen.max()) <= side
    steps = torch.stack(
        [
            seen[:, 0].diff(dim=1).median(2)[0].median(1)[0],
            seen[:, 1].diff(dim=2).flatten(1).mean(1),
        ]
    )
    assert 0.4 < float((steps[0] < 0).float().mean()) < 0.6
    assert bool((steps[1] > 0).all())
    # The product of two steps is the share of the image.
    assert float(steps.prod(0).abs().min()) > LEAST_AREA * 0.85
    assert float(steps.prod(0).abs().max()) < 1.05


def test_training_sees_two_new_views_of_the_image_and_a_test_the_image_itself() -> None:
    clean = images(4, 1, 8, 8)
    pairs = beside_a_view(clean, generator(0))
    assert torch.equal(pairs[:, :1], clean)
    seen, targets = two_views(pairs, torch.zeros(4), generator(1))
    assert seen.shape == pairs.shape
    assert not targets.any()
    draws = generator(1)
    assert torch.equal(seen, torch.cat([view(clean, draws), view(clean, draws)], dim=1))


def patients(first: torch.Tensor, second: torch.Tensor) -> list[Sums]:
    """Return the sums of patients of one image each."""
    activated = build_task(CONTRASTIVE).activate(torch.cat([first, second], dim=1))
    return [patient_sums([measure(each, NO_TARGET, ())]) for each in activated]


def added(rows: list[Sums]) -> Sums:
    return {key: np.sum([row[key] for row in rows], axis=0) for key in rows[0]}


def test_the_metric_is_0_where_pairs_agree_and_1_where_nothing_is_known() -> None:
    one, other = images(2000, 3), torch.randn(2000, 3, generator=generator(1))

    def unexplained(first: torch.Tensor, second: torch.Tensor) -> float:
        return score(added(patients(first, second)))["unexplained"]

    assert unexplained(one, 2 * one) == pytest.approx(0.0, abs=1e-6)
    assert unexplained(one, other) == pytest.approx(1.0, abs=0.05)
    assert unexplained(one, -one) == pytest.approx(WORST)
    # Who says nearly the same of all is judged by what is left.
    assert unexplained(one + 50, other + 50) == pytest.approx(1.0, abs=0.05)
    assert unexplained(torch.ones(3, 3), torch.ones(3, 3)) == 1.0
    assert unexplained(torch.zeros(3, 3), torch.zeros(3, 3)) == 1.0
    assert math.isnan(
        score({"place": np.zeros(3), "apart": np.zeros(1), "patients": np.zeros(1)})["unexplained"]
    )


def test_the_sums_of_two_sites_are_those_of_the_union_and_rows_are_bounded() -> None:
    rows = patients(images(6, 3), images(6, 3) + torch.randn(6, 3, generator=generator(3)))
    whole, parts = added(rows), added([added(rows[:2]), added(rows[2:])])
    assert score(whole) == pytest.approx(score(parts))
    bounded = [bounded_row(row) for row in rows]
    back = restored(added(bounded), len(rows))
    assert score(back) == pytest.approx(score(whole))
    assert back.keys() == whole.keys()


@given(
    first=st.lists(st.floats(), min_size=4, max_size=4),
    second=st.lists(st.floats(), min_size=4, max_size=4),
)
def test_two_patients_rows_are_never_further_apart_than_the_sensitivity(
    first: list[float], second: list[float]
) -> None:
    rows = [
        bounded_row({"place": np.array(each[:3]), "apart": np.array(each[3:])})
        for each in (first, second)
    ]
    apart = [np.concatenate([row["place"], row["apart"]]) for row in rows]
    limit = build_task(CONTRASTIVE).bounded.sensitivity
    assert float(np.linalg.norm(apart[0] - apart[1])) <= limit + 1e-9


def test_an_image_with_infinite_answers_is_refused() -> None:
    with pytest.raises(ValueError, match="not finite"):
        measure(torch.full((6,), math.nan), NO_TARGET, ())
    with pytest.raises(ValueError, match="without images"):
        patient_sums([])
