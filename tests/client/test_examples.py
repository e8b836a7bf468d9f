import pytest
import torch

from client.cohort import Samples
from client.examples import example_of, most_foreground
from common.tasks.classification import ClassificationConfig
from common.tasks.multilabel import MultilabelConfig

SICK = ClassificationConfig(name="classification", classes=["well", "sick"])
CHEST = MultilabelConfig(name="multilabel", classes=["mass", "edema"])


def one(target: torch.Tensor) -> Samples:
    return Samples(
        images=torch.zeros(1, 1, 4, 4),
        targets=target[None],
        patients=("p",),
        volumes=(0,),
        spacing_mm=((1.0, 1.0),),
    )


def test_a_class_is_told_with_the_answer_and_how_sure_it_is() -> None:
    example = example_of("s", one(torch.tensor(1)), 0, torch.tensor([0.75, 0.25]), SICK)
    assert example.caption == "truth sick, model well (0.75)"


@pytest.mark.parametrize(
    ("target", "probabilities", "caption"),
    [
        ([1, 1], [0.75, 0.25], "truth mass, edema, model mass (0.75)"),
        ([0, 0], [0.25, 0.25], "truth no label, model no label"),
        ([0, 1], [0.5, 0.75], "truth edema, model mass (0.50), edema (0.75)"),
    ],
)
def test_labels_are_told_that_are_there_and_that_are_found(
    target: list[int], probabilities: list[float], caption: str
) -> None:
    samples = one(torch.tensor(target))
    assert example_of("s", samples, 0, torch.tensor(probabilities), CHEST).caption == caption


def test_the_image_with_the_most_labels_is_shown() -> None:
    assert most_foreground(torch.tensor([[0, 1], [1, 1], [0, 0]])) == 1
    assert most_foreground(torch.tensor([0, 1, 1])) == 0
