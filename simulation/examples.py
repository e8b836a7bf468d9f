"""A few held-out images for the report; a simulation has every hospital at hand."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from client.evaluation import predict
from client.trainer import trainer_at
from client.work import cohort_of
from common.config import travelling
from common.tasks.registry import build_task
from common.tensor_files import read_tensors
from server.report.render import Example
from server.run import MODEL, initial_network
from simulation.baselines import site_folders
from simulation.run import Simulation

SITES_SHOWN = 6


def examples_of(run: Simulation, sites: Sequence[str]) -> list[Example]:
    """Return one example of each of the first few of the sites, under the final model."""
    weights, _ = read_tensors(run.folder / MODEL)
    model = initial_network(run.study)
    model.load_state_dict({**model.state_dict(), **weights})
    overrides = tuple(travelling(run.overrides))
    task = build_task(run.study.task)
    examples = []
    settings = [trainer_at(folder / "site.yaml").site for folder in site_folders(run)]
    for site in [site for site in settings if site.name in sites][:SITES_SHOWN]:
        held_out = cohort_of(site.manifest_path, overrides).held_out
        place = _most_foreground(held_out.targets)
        one = replace(held_out, images=held_out.images[place : place + 1])
        probabilities = predict(model, one, task, torch.device("cpu"))[0]
        upright = len(held_out.spacing_mm[place]) == 3
        image, target = one.images[0], held_out.targets[place]
        examples.append(_example(site.name, image, target, probabilities, run, upright))
    return examples


def _most_foreground(targets: Tensor) -> int:
    return int((targets > 0).flatten(1).sum(1).argmax()) if targets.ndim > 1 else 0


def _example(
    site: str, image_CS: Tensor, target: Tensor, probabilities: Tensor, run: Simulation, flip: bool
) -> Example:
    if target.ndim == 0:
        classes = run.study.task.classes
        said = f"{classes[int(probabilities.argmax())]} ({float(probabilities.max()):.2f})"
        return Example(
            site=site,
            caption=f"truth {classes[int(target)]}, model {said}",
            image_XY=_plane(image_CS.mean(0), image_CS.mean(0), flip),
            truth_XY=None,
            prediction_XY=None,
        )
    return Example(
        site=site,
        caption="held-out patient",
        image_XY=_plane(image_CS.mean(0), target[0], flip),
        truth_XY=_plane(target[0], target[0], flip),
        prediction_XY=_plane(probabilities.argmax(0), target[0], flip),
    )


def _plane(image: Tensor, target_S: Tensor, flip: bool) -> NDArray[Any]:
    """Return the picture, or the slice of a volume with the most foreground.

    flip: a scan's second axis runs up (to the front of the patient), a page's runs down.
    """
    if image.ndim == 3:
        image = image[..., int((target_S > 0).flatten(0, 1).sum(0).argmax())]
    plane: NDArray[Any] = image.numpy()
    return plane[:, ::-1] if flip else plane
