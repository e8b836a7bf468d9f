import pytest
import torch

from client.cohort import Samples
from client.examples import example_of, most_foreground
from tests.builders import study_from

SICK = study_from("model=cnn", "task=classification", "task.classes=[well,sick]")
CHEST = study_from("model=cnn", "task=multilabel", "task.classes=[mass,edema]")
TIMES = study_from("model=cnn", "task=survival")
GREY = study_from("task=restoration", "data.normalise=minmax")


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


def test_a_time_is_told_with_the_chance_of_the_event_before_the_last_cut() -> None:
    hazards = torch.full((5,), 0.5)
    for event, truth in ((1.0, "the event at 2.5"), (0.0, "none until 2.5")):
        samples = one(torch.tensor([2.5, event, 0.0]))
        caption = example_of("s", samples, 0, hazards, TIMES).caption
        assert caption == f"truth {truth}, model 0.97 before 5"


def test_an_image_stands_beside_the_view_that_it_came_with() -> None:
    study = study_from("model=cnn", "task=pretraining", "method=contrastive", "task.out_channels=2")
    pair = Samples(
        images=torch.zeros(1, 2, 4, 4),
        targets=torch.tensor([0]),
        patients=("p",),
        volumes=(0,),
        spacing_mm=((1.0, 1.0),),
    )
    example = example_of("s", pair, 0, torch.tensor([1.0, 0.0, 0.6, 0.8]), study)
    assert example.caption == "an image and a view of it, alike by 0.60"
    assert example.image_XY.shape == (8, 4)


def test_a_restored_image_stands_between_what_came_and_what_is_true() -> None:
    target = torch.stack([torch.full((4, 4), 0.75), torch.zeros(4, 4)])
    example = example_of("s", one(target), 0, torch.full((1, 4, 4), 0.5), GREY)
    assert example.image_XY.shape == (12, 4)
    assert example.image_XY[::4, 0].tolist() == [0.0, 0.5, 0.75]
    assert example.truth_XY is None


def test_a_turned_image_is_told_in_degrees() -> None:
    turns = study_from(
        "model=cnn",
        "task=pretraining",
        "task.method=rotated",
        "task.out_channels=4",
        "task.hidden_share=null",
        "task.patch=null",
        "task.headline=auroc",
    )
    chances = torch.tensor([0.1, 0.6, 0.2, 0.1])
    example = example_of("s", one(torch.tensor(2)), 0, chances, turns)
    assert example.caption == "truth 180 degrees, model 90 degrees (0.60)"
