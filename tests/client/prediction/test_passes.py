"""A model looks at an image as it did in the study, and at a larger one piece by piece."""

import functools

import pytest
import torch
from torch import Tensor, nn

from client.evaluation import predict
from client.prediction.passes import Passes
from client.profile import rows_of
from client.row_images import Acquired
from common.profile import FEATURES, STRATA
from common.tasks.registry import build_task
from server.run import initial_network
from tests.builders import PICTURES, SLICES, samples_of, study_from

ACQUIRED = Acquired(spacing_mm=(1.0, 1.0), size=(16, 16))


@functools.cache
def passes(*overrides: str) -> Passes:
    study = study_from(*overrides)
    return Passes(
        network=initial_network(study).eval(),
        study=study,
        task=build_task(study.task),
        device=torch.device("cpu"),
    )


def images(count: int, *size: int) -> Tensor:
    return torch.randn(count, 1, *size, generator=torch.Generator().manual_seed(len(size)))


MIRRORED = "task.mirrored=true"


@pytest.mark.parametrize(
    "overrides", [PICTURES, SLICES, (*PICTURES, MIRRORED), (*SLICES, MIRRORED)]
)
def test_an_image_of_the_studys_size_is_answered_as_in_the_study(
    overrides: tuple[str, ...],
) -> None:
    ours, samples = passes(*overrides), samples_of([1] * 40, size=16)
    expected = predict(ours.network, samples, ours.task, ours.device)
    assert torch.equal(ours.look(samples.images)[0], expected)


def test_the_features_are_those_that_the_sites_told() -> None:
    ours, samples = passes(*PICTURES), samples_of([1, 1, 1], size=16)
    samples = samples.__class__(**{**vars(samples), "acquired": (ACQUIRED,) * 3})
    _, features_NF = ours.look(samples.images)
    rows = rows_of(ours.network, [samples], ours.study, ours.device)
    for row, of_image in zip(rows, features_NF, strict=True):
        told = row[FEATURES].reshape(len(row[STRATA]), -1).sum(0)
        length = max(1.0, float(of_image.norm()))
        torch.testing.assert_close(torch.from_numpy(told).float(), of_image / length)


class Pointwise(nn.Module):
    """A network that sees one voxel at a time: windows cannot change what it says."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(1, 2, 1)

    def forward(self, images: Tensor) -> Tensor:
        of_images: Tensor = self.layer(images)
        return of_images


@pytest.mark.parametrize("size", [(16, 40), (33, 17)])
def test_windows_cover_every_voxel_of_a_larger_image(size: tuple[int, int]) -> None:
    ours = passes(*SLICES)
    ours = Passes(**{**vars(ours), "network": Pointwise().eval()})
    large = images(2, *size)
    with torch.inference_mode():
        expected = ours.task.activate(ours.network(large))
    torch.testing.assert_close(ours.look(large)[0], expected)


@pytest.mark.parametrize("size", [(16, 16), (16, 40)])
def test_the_answer_to_a_mirrored_image_is_the_mirrored_answer(size: tuple[int, int]) -> None:
    ours, image = passes(*SLICES, MIRRORED), images(2, *size)
    answer, mirrored = ours.look(image)[0], ours.look(image.flip(2))[0]
    torch.testing.assert_close(mirrored.flip(2), answer)
    plain = passes(*SLICES).look(image)[0]
    assert not torch.allclose(plain, answer)


def test_the_class_of_a_mirrored_image_is_the_class_of_the_image() -> None:
    ours, image = passes(*PICTURES, MIRRORED), images(2, 16, 16)
    torch.testing.assert_close(ours.look(image)[0], ours.look(image.flip(2))[0])


def test_a_model_that_has_diverged_is_told() -> None:
    ours = passes(*SLICES)
    with pytest.raises(ValueError, match="training has diverged"):
        ours.look(images(1, 16, 16) * float("nan"))
