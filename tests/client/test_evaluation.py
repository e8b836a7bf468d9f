import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from client.cohort import Samples
from client.evaluation import (
    BATCH,
    bootstrap,
    bootstrap_change,
    bootstrap_gain,
    evaluate,
    patient_rows,
    predict,
)
from common.models.registry import build_model
from common.tasks.registry import build_task
from common.tasks.task import Sums
from tests.builders import PICTURES, SLICES, samples_of, study_from

SEGMENTATION = build_task(study_from(*SLICES).task)
CLASSIFICATION = build_task(study_from(*PICTURES).task)
CPU = torch.device("cpu")
DICE = st.lists(st.floats(0, 1, width=16), min_size=1, max_size=20)


def row(dice: float) -> Sums:
    one, zero = np.ones(1), np.zeros(1)
    return {"dice": dice * one, "patients": one, "hd95_mm": zero, "hd95_patients": zero}


def volume(slices: list[int], depth: int = 6) -> Tensor:
    """Return a mask [depth, 1, 8, 8] with a square in some of its slices."""
    mask = torch.zeros(depth, 1, 8, 8, dtype=torch.int64)
    mask[slices, :, 2:6, 2:6] = 1
    return mask


def certain(masks: Tensor) -> Tensor:
    """Return the probabilities [N, 2, ...] of a model that is sure of the masks."""
    return torch.cat([1 - masks, masks], dim=1).float()


def slices_of(targets: Tensor, patients: tuple[str, ...], volumes: tuple[int, ...]) -> Samples:
    return Samples(
        images=torch.zeros(len(targets), 1, 8, 8),
        targets=targets,
        patients=patients,
        volumes=volumes,
        spacing_mm=((1.0, 1.0, 5.0),) * len(targets),
    )


@settings(deadline=None, max_examples=20)
@given(values=DICE, seed=st.integers(0, 9))
def test_the_interval_contains_the_value(values: list[float], seed: int) -> None:
    found = bootstrap([row(value) for value in values], SEGMENTATION, seed)["dice"]
    assert found.value == pytest.approx(np.mean(values))
    if len(values) == 1:
        # Of one patient alone nothing can be drawn again.
        assert (found.low, found.high) == (None, None)
        return
    assert found.low is not None
    assert found.high is not None
    assert found.low - 1e-12 <= found.value <= found.high + 1e-12
    assert min(values) - 1e-12 <= found.low
    assert found.high <= max(values) + 1e-12
    assert found.n == len(values)


@settings(deadline=None, max_examples=10)
@given(value=st.floats(0, 1), patients=st.integers(2, 20))
def test_the_interval_of_a_constant_is_the_constant(value: float, patients: int) -> None:
    found = bootstrap([row(value)] * patients, SEGMENTATION, 0)["dice"]
    assert found.low == pytest.approx(value, abs=1e-12)
    assert found.high == pytest.approx(value, abs=1e-12)


def test_the_same_seed_draws_the_same_interval() -> None:
    rows = [row(value) for value in np.random.default_rng(0).uniform(size=40)]
    assert bootstrap(rows, SEGMENTATION, 1) == bootstrap(rows, SEGMENTATION, 1)
    assert bootstrap(rows, SEGMENTATION, 1) != bootstrap(rows, SEGMENTATION, 2)


def test_the_interval_is_as_wide_as_theory_says() -> None:
    values = np.random.default_rng(0).uniform(size=100)
    found = bootstrap([row(value) for value in values], SEGMENTATION, 0)["dice"]
    assert found.low is not None
    assert found.high is not None
    wide = 2 * 1.96 * values.std() / math.sqrt(len(values))
    assert found.high - found.low == pytest.approx(wide, rel=0.1)


def test_a_distance_counts_the_distance_of_the_slices() -> None:
    samples = slices_of(volume([2]), ("p",) * 6, (0,) * 6)
    found = evaluate(certain(volume([4])), samples, SEGMENTATION, 0)
    assert found["hd95_mm"].value == pytest.approx(2 * 5.0)
    assert found["dice"].value == 0.0


def test_slices_of_two_volumes_are_not_stacked_together() -> None:
    targets = torch.cat([volume([5]), volume([0])])
    told = torch.cat([volume([0]), volume([5])])
    samples = slices_of(targets, ("p",) * 12, (0,) * 6 + (1,) * 6)
    found = evaluate(certain(told), samples, SEGMENTATION, 0)
    assert found["hd95_mm"].value == pytest.approx(5 * 5.0)
    assert found["dice"].n == 1


def test_pictures_are_measured_in_their_plane() -> None:
    samples = slices_of(volume([0, 1], depth=2), ("p", "q"), (0, 1))
    pictures = Samples(**{**vars(samples), "spacing_mm": ((2.0, 3.0),) * 2})
    moved = torch.roll(volume([0, 1], depth=2), 1, dims=2)
    found = evaluate(certain(moved), pictures, SEGMENTATION, 0)
    assert found["hd95_mm"].value == pytest.approx(2.0)
    assert found["dice"].n == 2


def test_classification_of_slices_counts_every_image() -> None:
    samples = samples_of([3, 1, 5])
    one_volume_a_patient = Samples(
        **{**vars(samples), "volumes": tuple(int(p[1:]) for p in samples.patients)}
    )
    probabilities = torch.full((9, 2), 0.5)
    rows = patient_rows(probabilities, one_volume_a_patient, CLASSIFICATION)
    assert {p: float(r["confusion"].sum()) for p, r in rows.items()} == {
        "p000": 3,
        "p001": 1,
        "p002": 5,
    }


def test_a_metric_without_a_meaning_here_has_no_value() -> None:
    samples = Samples(**{**vars(samples_of([1, 1])), "targets": torch.ones(2, dtype=torch.long)})
    found = evaluate(torch.full((2, 2), 0.5), samples, CLASSIFICATION, 0)
    assert (found["auroc"].value, found["auroc"].low, found["auroc"].high) == (None, None, None)
    assert found["ece"].value is not None


def test_nobody_held_out_gives_no_estimates() -> None:
    assert evaluate(torch.zeros(0, 2), samples_of([]), CLASSIFICATION, 0) == {}


def test_predictions_do_not_depend_on_the_batches_and_drop_nothing_out() -> None:
    study = study_from(*PICTURES, "model.dropout=0.5")
    model: nn.Module = build_model(study.model, 0)
    samples = samples_of([1] * (BATCH + 3))
    found = predict(model, samples, CLASSIFICATION, CPU)
    assert found.shape == (BATCH + 3, 2)
    with torch.no_grad():
        alone = torch.cat([model(image[None]).softmax(1) for image in samples.images])
    torch.testing.assert_close(found, alone)
    torch.testing.assert_close(found.sum(1), torch.ones(BATCH + 3))


@pytest.mark.parametrize("overrides", [SLICES, PICTURES])
def test_a_mirrored_answer_is_the_mean_of_two(overrides: tuple[str, ...]) -> None:
    study = study_from(*overrides)
    task, twice = (build_task(replace(study.task, mirrored=m)) for m in (None, True))
    model, samples = build_model(study.model, 0), samples_of([1] * (BATCH + 3), size=16)
    plain = predict(model, samples, task, CPU)
    other = predict(model, replace(samples, images=samples.images.flip(2)), task, CPU)
    expected = (plain + (other.flip(2) if study.task.dense else other)) / 2
    assert torch.equal(predict(model, samples, twice, CPU), expected)
    assert not torch.allclose(plain, expected)


@settings(max_examples=30)
@given(pairs=st.lists(st.tuples(st.floats(0, 1, width=16), st.floats(0, 1, width=16)), min_size=2))
def test_a_gain_is_the_difference_and_turns_round_with_the_models(
    pairs: list[tuple[float, float]],
) -> None:
    ours, others = [row(a) for a, _ in pairs], [row(b) for _, b in pairs]
    one = bootstrap_gain(ours, others, SEGMENTATION, 0)["dice"]
    two = bootstrap_gain(others, ours, SEGMENTATION, 0)["dice"]
    means = [float(np.mean(values)) for values in zip(*pairs, strict=True)]
    assert one.value == pytest.approx(means[0] - means[1], abs=1e-9)
    assert (two.value, two.low, two.high) == pytest.approx((-one.value, -one.high, -one.low))
    same = bootstrap_gain(ours, ours, SEGMENTATION, 0)["dice"]
    assert (same.value, same.low, same.high) == (0.0, 0.0, 0.0)


def test_pairs_tell_what_two_intervals_of_their_own_do_not() -> None:
    random = np.random.default_rng(0)
    patients = random.uniform(0.2, 0.8, 40)
    ours, others = [row(v + 0.02) for v in patients], [row(v) for v in patients]
    gain = bootstrap_gain(ours, others, SEGMENTATION, 0)["dice"]
    assert gain.low is not None
    assert gain.low == pytest.approx(0.02)
    alone = [bootstrap(rows, SEGMENTATION, 0)["dice"] for rows in (ours, others)]
    assert alone[0].low is not None
    assert alone[1].high is not None
    assert alone[0].low < alone[1].high


def test_the_interval_of_a_change_between_other_patients_is_as_wide_as_both_together() -> None:
    draws = np.random.default_rng(0)
    later, earlier = ([row(x) for x in draws.uniform(0, 1, n)] for n in (40, 90))
    change = bootstrap_change(later, earlier, SEGMENTATION, 0)["dice"]
    sides = [bootstrap(side, SEGMENTATION, 1)["dice"] for side in (later, earlier)]
    assert change.value == pytest.approx((sides[0].value or 0) - (sides[1].value or 0))
    widths = [(of.high or 0) - (of.low or 0) for of in (*sides, change)]
    assert widths[2] == pytest.approx(math.hypot(widths[0], widths[1]), rel=0.1)


def test_a_change_to_or_from_one_patient_has_no_interval() -> None:
    one, many = [row(0.5)], [row(0.25), row(0.75)]
    for later, earlier in ((one, many), (many, one)):
        change = bootstrap_change(later, earlier, SEGMENTATION, 0)["dice"]
        assert (change.value, change.low, change.high) == (0.0, None, None)


def test_an_ensemble_answers_the_mean_of_its_networks_probabilities() -> None:
    study, samples = study_from(*PICTURES), samples_of([1, 2], size=16)
    models = [build_model(study.model, seed) for seed in (1, 2, 3)]
    each = [predict(model, samples, CLASSIFICATION, CPU) for model in models]
    together = predict(nn.ModuleList(models), samples, CLASSIFICATION, CPU)
    torch.testing.assert_close(together, sum(each) / 3)
    assert not torch.allclose(together, each[0])
