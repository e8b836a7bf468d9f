import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from client.privacy.statistics import bounded_total, noised, noised_estimates
from common.seeding import generator
from common.tasks.classification import ClassificationConfig
from common.tasks.classification import measure as measure_class
from common.tasks.multilabel import MultilabelConfig
from common.tasks.ranking import SCORE_BINS
from common.tasks.registry import build_task
from common.tasks.segmentation import SegmentationConfig
from common.tasks.task import Sums, Task

SEGMENTATION = [
    build_task(
        SegmentationConfig(
            name="segmentation",
            classes=list("abc")[:count],
            label_values=list(range(1, count + 1)),
            out_channels=count + 1,
        )
    )
    for count in (1, 3)
]
CLASSIFICATION = [
    build_task(
        ClassificationConfig(
            name="classification", classes=list("abcd")[:count], out_channels=count
        )
    )
    for count in (2, 4)
]
MULTILABEL = [
    build_task(MultilabelConfig(name="multilabel", classes=list("abc"), out_channels=3)),
]
ALL = SEGMENTATION + CLASSIFICATION + MULTILABEL
SEEDS = st.integers(0, 2**32 - 1)


def segmented(task: Task, seed: int, patients: int) -> list[Sums]:
    """Rows of patients of all kinds, with values at the ends of their range too."""
    rng = np.random.default_rng(seed)
    classes = len(task.config.classes)
    return [
        {
            "dice": rng.choice([0.0, 1.0, rng.random()], size=classes),
            "patients": np.ones(classes),
            "hd95_mm": 100 * rng.random(classes),
            "hd95_patients": np.ones(classes),
        }
        for _ in range(patients)
    ]


def classified(task: Task, seed: int, patients: int, spread: float = 3.0) -> list[Sums]:
    """Rows of patients with one to five images of one class."""
    rng = np.random.default_rng(seed)
    classes = len(task.config.classes)
    rows = []
    for _ in range(patients):
        truth = int(rng.integers(classes))
        logits = rng.normal(size=(rng.integers(1, 6), classes)) * spread
        logits[:, truth] += spread
        shares = np.exp(logits - logits.max(1, keepdims=True))
        shares /= shares.sum(1, keepdims=True)
        images = [measure_class(torch.tensor(p), torch.tensor(truth), []) for p in shares]
        rows.append(task.patient_sums(images))
    return rows


def labelled(task: Task, seed: int, patients: int) -> list[Sums]:
    """Rows of patients with one to five images, each with any of the labels."""
    rng = np.random.default_rng(seed)
    rows = []
    for _ in range(patients):
        truths = torch.from_numpy(rng.integers(2, size=(rng.integers(1, 6), 3)))
        shares = torch.from_numpy(rng.choice([0.0, 1.0, rng.random()], size=truths.shape))
        images = [task.measure(p, t, []) for p, t in zip(shares, truths, strict=True)]
        rows.append(task.patient_sums(images))
    return rows


def rows_of(task: Task, seed: int, patients: int) -> list[Sums]:
    if task in MULTILABEL:
        return labelled(task, seed, patients)
    return (segmented if task in SEGMENTATION else classified)(task, seed, patients)


def distance(one: Sums, two: Sums) -> float:
    return math.sqrt(sum(float(((one[name] - two[name]) ** 2).sum()) for name in one))


def exact(rows: Sequence[Sums], task: Task) -> dict[str, float]:
    return task.score({name: np.sum([row[name] for row in rows], axis=0) for name in rows[0]})


@settings(max_examples=25)
@given(
    task=st.sampled_from(SEGMENTATION + CLASSIFICATION + MULTILABEL),
    seed=SEEDS,
    patients=st.integers(2, 6),
)
def test_one_patient_moves_the_total_by_at_most_the_sensitivity(
    task: Task, seed: int, patients: int
) -> None:
    rows = rows_of(task, seed, patients + 1)
    total = bounded_total(rows[:-1], task)
    replaced = bounded_total([*rows[1:-1], rows[-1]], task)
    without = bounded_total(rows[1:-1], task)
    limit = task.bounded.sensitivity + 1e-9
    assert distance(total, replaced) <= limit
    assert distance(total, without) <= limit


JUNK = st.floats(allow_nan=True, allow_infinity=True)


@settings(max_examples=40)
@given(one=hnp.arrays(np.float64, 3, elements=JUNK), two=hnp.arrays(np.float64, 3, elements=JUNK))
def test_the_bound_holds_whatever_a_patients_dice_are(one: np.ndarray, two: np.ndarray) -> None:
    task = SEGMENTATION[1]
    a, b = (bounded_total([{"dice": values}], task) for values in (one, two))
    assert distance(a, b) <= task.bounded.sensitivity + 1e-9


@settings(max_examples=40)
@given(
    bins=st.tuples(*[st.tuples(st.integers(0, SCORE_BINS - 1), JUNK)] * 2),
    cells=st.tuples(*[hnp.arrays(np.float64, (2, 2), elements=JUNK)] * 2),
)
def test_the_bound_holds_whatever_a_patients_counts_are(
    bins: tuple[tuple[int, float], ...], cells: tuple[np.ndarray, ...]
) -> None:
    task = CLASSIFICATION[0]
    totals = []
    for (place, value), confusion in zip(bins, cells, strict=True):
        scores = np.zeros((1, 2, SCORE_BINS))
        scores[0, 1, place] = value
        totals.append(bounded_total([{"scores": scores, "confusion": confusion}], task))
    assert distance(*totals) <= task.bounded.sensitivity + 1e-9


def test_the_sensitivity_is_reached_so_the_noise_is_not_more_than_it_must_be() -> None:
    for task in SEGMENTATION:
        ends = [{"dice": np.full(len(task.config.classes), value)} for value in (0.0, 1.0)]
        totals = [bounded_total([end], task) for end in ends]
        assert distance(*totals) == pytest.approx(task.bounded.sensitivity)
    for task in CLASSIFICATION:
        # All right and sure, against all wrong and sure.
        p = torch.eye(len(task.config.classes), dtype=torch.float64)
        rows = [
            task.patient_sums([measure_class(p[k], torch.tensor(t), [])])
            for k, t in ((0, 0), (0, 1))
        ]
        apart = distance(*(bounded_total([row], task) for row in rows))
        assert apart <= task.bounded.sensitivity + 1e-9
    binary = CLASSIFICATION[0].bounded.sensitivity
    assert binary == pytest.approx(2.0)


@settings(max_examples=15)
@given(seed=SEEDS, patients=st.integers(1, 12))
def test_without_noise_the_metrics_are_the_exact_ones(seed: int, patients: int) -> None:
    for task in SEGMENTATION:
        rows = segmented(task, seed, patients)
        total = noised(bounded_total(rows, task), 0.0, generator(seed))
        scored = task.score(task.bounded.restore(total, patients))
        expected = exact(rows, task)
        assert scored == {n: pytest.approx(expected[n], abs=1e-9) for n in scored}
        assert set(expected) - set(scored) == {"hd95_mm"}


@pytest.mark.parametrize("task", CLASSIFICATION)
def test_without_noise_a_ranking_is_the_exact_one_up_to_the_wide_bins(task: Task) -> None:
    rows = classified(task, 1, 120, spread=1.0)
    single = [task.patient_sums([row_of_one_image(row)]) for row in rows]
    total = noised(bounded_total(single, task), 0.0, generator(0))
    scored = task.score(task.bounded.restore(total, len(single)))
    expected = exact(single, task)
    assert scored["auroc"] == pytest.approx(expected["auroc"], abs=0.02)
    assert scored["balanced_accuracy"] == pytest.approx(expected["balanced_accuracy"])
    assert "ece" not in scored


def row_of_one_image(row: Sums) -> Sums:
    """The row as if its images were one: shares in the place of counts."""
    images = row["confusion"].sum()
    return {name: values / images for name, values in row.items()}


def test_a_patient_with_many_images_counts_as_one() -> None:
    task = CLASSIFICATION[0]
    image = measure_class(torch.tensor([0.1, 0.9]), torch.tensor(1), [])
    one, many = (bounded_total([task.patient_sums([image] * n)], task) for n in (1, 50))
    assert distance(one, many) == pytest.approx(0.0)


@pytest.mark.parametrize("task", SEGMENTATION + CLASSIFICATION)
def test_the_noise_has_the_stated_deviation(task: Task) -> None:
    total = bounded_total(rows_of(task, 0, 5), task)
    draws = generator(3)
    drawn = [noised(total, 2.5, draws) for _ in range(1500)]
    for name in total:
        noise = np.stack([draw[name] for draw in drawn]) - total[name]
        assert abs(noise.mean()) < 0.2
        assert noise.std() == pytest.approx(2.5, rel=0.05)
        flat = noise.reshape(len(noise), -1)
        if flat.shape[1] > 1:
            assert abs(np.corrcoef(flat[:, 0], flat[:, 1])[0, 1]) < 0.15


@pytest.mark.parametrize("task", SEGMENTATION + CLASSIFICATION)
def test_the_release_is_possible_without_interval(task: Task) -> None:
    rows = rows_of(task, 4, 30)
    found = noised_estimates(rows, task, 3.0, generator(1))
    assert set(found) <= set(task.metrics)
    for name, estimate in found.items():
        assert estimate.low is estimate.high is None
        assert estimate.n == 30
        assert estimate.value is not None
        assert task.metrics[name].low <= estimate.value <= task.metrics[name].high


@settings(max_examples=20)
@given(seed=SEEDS, std=st.floats(0, 1e6), patients=st.integers(1, 40))
def test_whatever_the_noise_the_totals_are_possible(seed: int, std: float, patients: int) -> None:
    for task in (SEGMENTATION[1], CLASSIFICATION[1]):
        total = noised(bounded_total(rows_of(task, seed, 3), task), std, generator(seed))
        possible = task.bounded.restore(total, patients)
        assert all((values >= 0).all() for values in possible.values())
        if "dice" in possible:
            assert (possible["dice"] <= patients).all()
        else:
            tables = [*possible["scores"], possible["confusion"]]
            assert [t.sum() for t in tables] == [pytest.approx(patients, rel=1e-6)] * len(tables)


def test_the_same_secret_gives_the_same_release_and_another_another() -> None:
    task = SEGMENTATION[0]
    rows = segmented(task, 0, 20)
    told = [noised_estimates(rows, task, 2.0, generator(seed)) for seed in (1, 1, 2)]
    assert told[0] == told[1] != told[2]


def test_much_data_and_little_noise_come_near_to_the_exact_metrics() -> None:
    for task in (SEGMENTATION[1], CLASSIFICATION[0]):
        rows = rows_of(task, 0, 25) * 40
        found = noised_estimates(rows, task, 0.5, generator(0))
        unnoised = task.score(task.bounded.restore(bounded_total(rows, task), len(rows)))
        for name, estimate in found.items():
            assert estimate.value == pytest.approx(unnoised[name], abs=0.05), name


@pytest.mark.parametrize("multiplier", [0.0, -1.0, math.nan])
def test_no_release_without_noise(multiplier: float) -> None:
    with pytest.raises(ValueError, match="noise_multiplier"):
        noised_estimates(
            segmented(SEGMENTATION[0], 0, 3), SEGMENTATION[0], multiplier, generator(0)
        )


def test_no_release_over_no_patients() -> None:
    with pytest.raises(ValueError, match="no patient is held out"):
        noised_estimates([], SEGMENTATION[0], 1.0, generator(0))
