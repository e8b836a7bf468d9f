from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from client.cohort import Samples
from client.placement import samples_on
from client.training import random_part
from common.config import load_study
from common.frequencies import count_of
from common.seeding import generator
from common.study import Study
from common.tasks.registry import build_task

CPU, META = torch.device("cpu"), torch.device("meta")
STYLES = f"data.amplitudes={[[0.1] * count_of(2)] * 3}"
WAYS: dict[str, Sequence[str]] = {
    "flipped": ["data=slices", "data.augment=flip"],
    "moved": ["data=slices", "data.augment=full"],
    "moved in 3-D": ["data=volumes", "data.augment=full"],
    "classes": ["data=pictures", "task=classification", "model=cnn", "data.augment=full"],
    "other styles": ["data=slices", STYLES],
    "sequences": ["experiment=virtual_sequences"],
    "restoration": ["experiment=virtual_restoration"],
    "hidden": ["experiment=hippocampus_pretraining"],
    "turned": ["experiment=pneumonia_pretraining"],
    "compared": ["experiment=pneumonia_pretraining", "method=contrastive"],
}


def study_of(way: str) -> Study:
    return load_study(WAYS[way])


def samples_of(study: Study, count: int = 3) -> Samples:
    channels = study.data.planes * (2 if getattr(study.task, "compares_images", False) else 1)
    images = torch.rand(count, channels, *study.data.size, generator=generator(1))
    targets: Tensor = torch.zeros(count, dtype=torch.long)
    if study.task.name in ("segmentation", "restoration"):
        targets = (images[:, :1] > 0.5).long()
    if getattr(study.task, "grey", False):
        targets = torch.cat([images, images], dim=1)
    return Samples(
        images=images,
        targets=targets,
        patients=tuple(map(str, range(count))),
        volumes=tuple(range(count)),
        spacing_mm=((1.0,) * study.data.spatial_dims,) * count,
    )


@pytest.mark.parametrize("way", WAYS)
def test_samples_are_changed_where_they_are(way: str) -> None:
    # Tensors of the meta device have no numbers: mixed with the CPU's they raise, as a GPU's do.
    study = study_of(way)
    samples, task = samples_of(study), build_task(study.task)
    here = random_part(study, task, generator(2))(samples.images, samples.targets)
    there = random_part(study, task, generator(2))(
        samples.images.to(META), samples.targets.to(META)
    )
    assert [part.device for part in there] == [META, META]
    assert [part.shape for part in there] == [part.shape for part in here]


def test_on_the_cpu_samples_are_taken_as_they_are() -> None:
    study = study_of("moved")
    samples = samples_of(study)
    images, targets = samples_on(samples, study.data, CPU)(torch.tensor([2, 0]))
    assert torch.equal(images, samples.images[[2, 0]])
    assert torch.equal(targets, samples.targets[[2, 0]])


def test_segments_are_cut_on_the_cpu() -> None:
    study = study_of("moved")
    samples, cut = samples_of(study), replace(study.data, segment=[8, 8])
    images, targets = samples_on(samples, cut, META)(torch.tensor([1]))
    assert (images.device, targets.device) == (CPU, CPU)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
@pytest.mark.parametrize("share", [0.0, 1.0], ids=["batch by batch", "all at once"])
def test_a_gpu_has_the_samples_that_are_taken(
    monkeypatch: pytest.MonkeyPatch, share: float
) -> None:
    monkeypatch.setattr("client.placement.SHARE", share)
    study = study_of("moved")
    samples = samples_of(study)
    images, targets = samples_on(samples, study.data, torch.device("cuda"))(torch.tensor([2, 0]))
    assert images.is_cuda
    assert torch.equal(images.cpu(), samples.images[[2, 0]])
    assert torch.equal(targets.cpu(), samples.targets[[2, 0]])
