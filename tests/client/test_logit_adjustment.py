import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from client.cohort import Samples
from client.logit_adjustment import adjusted, log_frequencies
from common.tasks.registry import build_task
from tests.builders import PICTURES, PRIVATE, samples_of, study_from

ADJUSTED = ("training.logit_adjustment=1.0",)


def labelled(labels: list[int]) -> Samples:
    return replace(samples_of([1] * len(labels)), targets=torch.tensor(labels))


@given(st.lists(st.integers(0, 2), min_size=1, max_size=30))
def test_frequencies_are_those_of_the_labels_with_half_an_image_more_of_each(
    labels: list[int],
) -> None:
    found = log_frequencies(torch.tensor(labels), 3)
    for k in range(3):
        share = (labels.count(k) + 0.5) / (len(labels) + 1.5)
        assert float(found[k]) == pytest.approx(math.log(share), abs=1e-5)


@given(st.integers(1, 40), st.integers(1, 40), st.floats(-3.0, 3.0))
def test_sites_of_other_frequencies_have_their_best_logits_in_the_same_place(
    normals: int, ill: int, evidence: float
) -> None:
    """Bayes: an image of which the evidence is e has log odds e + log(n1 / n0) at the site.

    So the loss over images of equal look is least where the logits differ by e, at every site.
    """
    study = study_from(*PICTURES, *ADJUSTED)
    samples = labelled([0] * normals + [1] * ill)
    prior = log_frequencies(samples.targets, 2)
    chance_ill = torch.sigmoid(torch.tensor(evidence) + prior[1] - prior[0])
    task = adjusted(build_task(study.task), samples, study)
    logit = torch.tensor(evidence, requires_grad=True)
    logits = torch.stack([torch.zeros(()), logit])[None]
    of_normal, of_ill = (task.loss(logits, torch.tensor([k])) for k in (0, 1))
    ((1 - chance_ill) * of_normal + chance_ill * of_ill).backward()
    assert logit.grad is not None
    assert abs(float(logit.grad)) < 1e-5


def test_without_the_setting_the_task_is_the_studys() -> None:
    study = study_from(*PICTURES)
    task = build_task(study.task)
    assert adjusted(task, labelled([0, 1]), study) is task


def test_images_without_labels_say_nothing_of_frequencies() -> None:
    study = study_from(*PICTURES, *ADJUSTED)
    logits, target = torch.randn(3, 2), torch.tensor([0, 1, 1])
    losses = [
        adjusted(build_task(study.task), labelled(labels), study).loss(logits, target)
        for labels in ([0, 1, 1], [0, -1, 1, 1, -1])
    ]
    assert torch.equal(*losses)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ((*PICTURES, *PRIVATE), "which the noise of privacy does not cover"),
        ((), "task.name=segmentation asks for something else"),
        ((*PICTURES, "training.logit_adjustment=0"), "training.logit_adjustment=0"),
    ],
)
def test_a_study_that_it_does_not_fit_is_refused(settings: tuple[str, ...], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        study_from(*ADJUSTED, *settings)
