"""What a model says stands on the voxels of the file, in the words of the study."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from client.prediction.answers import answers_to, entropy_of
from client.prediction.passes import Passes
from client.readers import Picture
from common.tasks.registry import build_task
from tests.builders import PICTURES, SLICES, study_from

CLASSES = ("task.classes=[head,tail]", "task.label_values=[7,300]", "task.out_channels=3")
MULTILABEL = (
    *PICTURES,
    "task=multilabel",
    "task.classes=[mass,fluid]",
    "task.out_channels=2",
    "task.headline=auroc",
)


class Bands(nn.Module):
    """Says of each voxel or image, by its value, which of the classes it is."""

    def __init__(self, classes: int, dense: bool) -> None:
        super().__init__()
        self.layer = nn.Conv2d(1, 1, 1)
        nn.init.ones_(self.layer.weight)
        nn.init.zeros_(self.layer.bias)
        self.classes, self.dense = classes, dense

    def forward(self, images: Tensor) -> Tensor:
        values = self.layer(images)
        logits = torch.cat([40 * k * values - 20 * k * k for k in range(self.classes)], 1)
        return logits if self.dense else logits.mean((2, 3))


def passes(classes: int, *overrides: str) -> Passes:
    study = study_from(*overrides)
    return Passes(
        network=Bands(classes, study.task.dense).eval(),
        study=study,
        task=build_task(study.task),
        device=torch.device("cpu"),
    )


def picture(values_CS: np.ndarray) -> Picture:
    spacing = (1.0, 1.0, 4.0)[: values_CS.ndim - 1]
    return Picture(array_CS=values_CS.astype(np.float32), spacing_mm=spacing)


@given(st.integers(0, 200), st.integers(5, 40), st.integers(5, 40))
def test_a_mask_has_the_files_voxels_and_the_values_of_the_studys_masks(
    seed: int, x: int, y: int
) -> None:
    values = np.random.default_rng(seed).normal(size=(1, x, y))
    ours = passes(3, *SLICES, *CLASSES, "data.normalise=zscore")
    (answer,) = answers_to([picture(values)], ours)
    normalised = (values[0] - values.mean()) / values.std()
    expected = np.select([normalised > 1.5, normalised > 0.5], [300, 7], 0)
    near_a_band = np.abs(normalised[..., None] - [0.5, 1.5]).min(-1) < 1e-3
    np.testing.assert_array_equal(answer.labels()[~near_a_band], expected[~near_a_band])
    assert answer.voxels == {
        "head": int((answer.labels() == 7).sum()),
        "tail": int((answer.labels() == 300).sum()),
    }


def test_the_slices_of_a_volume_are_answered_in_their_places() -> None:
    values = np.random.default_rng(0).normal(size=(1, 20, 9, 40))
    (answer,) = answers_to([picture(values)], passes(2, *SLICES))
    normalised = (values[0] - values.mean()) / values.std()
    sure = np.abs(normalised - 0.5) > 1e-3
    np.testing.assert_array_equal(answer.labels()[sure], (normalised > 0.5)[sure])
    assert 0 < answer.entropy < 1


def test_pictures_of_many_sizes_are_answered_in_their_order() -> None:
    ours = passes(2, *SLICES)
    draws = np.random.default_rng(0)
    pictures = [picture(draws.normal(size=(1, n, 12))) for n in (8, 30, 8, 16, 30)]
    together = answers_to(pictures, ours)
    for answer, one in zip(together, pictures, strict=True):
        (alone,) = answers_to([one], ours)
        np.testing.assert_array_equal(answer.labels(), alone.labels())


def test_a_class_comes_with_the_score_of_each() -> None:
    ours = passes(2, *PICTURES)
    (answer,) = answers_to([picture(np.random.default_rng(0).normal(size=(1, 16, 16)))], ours)
    assert set(answer.scores) == {"normal", "pneumonia"}
    assert sum(answer.scores.values()) == pytest.approx(1)
    assert answer.label == max(answer.scores, key=lambda name: answer.scores[name])
    assert answer.classes_S is None


class Says(nn.Module):
    """Has the same logits for every image."""

    def __init__(self, logits: tuple[float, ...]) -> None:
        super().__init__()
        self.layer = nn.Conv2d(1, 1, 1)
        self.logits = torch.tensor(logits)

    def forward(self, images: Tensor) -> Tensor:
        return 0 * self.layer(images).mean((2, 3)) + self.logits


@pytest.mark.parametrize(
    ("logits", "label"),
    [((-1, -2), "none"), ((1, -2), "mass"), ((3, 1), "mass|fluid"), ((0, -1), "mass")],
)
def test_the_answer_is_each_label_that_is_as_likely_as_not_or_that_there_is_none(
    logits: tuple[float, ...], label: str
) -> None:
    ours = replace(passes(2, *MULTILABEL), network=Says(logits).eval())
    (answer,) = answers_to([picture(np.random.default_rng(0).normal(size=(1, 16, 16)))], ours)
    assert answer.label == label
    expected = torch.tensor(logits).sigmoid().tolist()
    assert list(answer.scores.values()) == pytest.approx(expected)


@given(st.lists(st.floats(0.01, 1), min_size=2, max_size=5))
def test_entropy_is_one_where_all_are_alike_and_nothing_where_one_is_sure(
    weights: list[float],
) -> None:
    probabilities = torch.tensor(weights, dtype=torch.float64)
    probabilities /= probabilities.sum()
    expected = -sum(p * math.log(p) for p in probabilities.tolist()) / math.log(len(weights))
    assert float(entropy_of(probabilities)) == pytest.approx(expected)
    sure = torch.eye(len(weights))[0]
    assert float(entropy_of(sure)) == 0
    alike = torch.full((len(weights),), 1 / len(weights))
    assert float(entropy_of(alike)) == pytest.approx(1)
