"""Held-out images with what is true and what a model says of them, to be drawn."""

from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from client.cohort import Samples
from common.pictures import Example
from common.study import Study
from common.tasks.config import TaskConfig
from common.tasks.survival import SurvivalConfig


def most_foreground(targets: Tensor) -> int:
    """Return the sample with the largest foreground, or with the most labels; else the first."""
    return int((targets > 0).flatten(1).sum(1).argmax()) if targets.ndim > 1 else 0


def example_of(
    site: str, samples: Samples, place: int, probabilities: Tensor, study: Study
) -> Example:
    """Return one sample as a picture; of a volume the slice with the most foreground.

    probabilities: [K, ...] of that sample.
    """
    task = study.task
    image_CS, target = samples.images[place][: study.data.channels], samples.targets[place]
    # A scan's second axis runs up (to the front of the patient), a page's runs down.
    flip = len(samples.spacing_mm[place]) == 3
    if task.grey:
        # Side by side: what came, what the model makes of it, what it was made from.
        shown = torch.cat([image_CS[:1], probabilities, target[:1]], dim=1)[0]
        return Example(
            site=site,
            caption="as it came, restored, true",
            image_XY=_plane(shown, shown, flip),
            truth_XY=None,
            prediction_XY=None,
        )
    if task.compares_images:
        # Side by side: the image, and the view that it came with.
        shown = torch.cat([*samples.images[place].chunk(2)], dim=1).mean(0)
        first, second = probabilities.chunk(2)
        return Example(
            site=site,
            caption=f"an image and a view of it, alike by {float(first @ second):.2f}",
            image_XY=_plane(shown, shown, flip),
            truth_XY=None,
            prediction_XY=None,
        )
    if not task.dense:
        return Example(
            site=site,
            caption=_said(target, probabilities, task),
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


def _said(target: Tensor, probabilities: Tensor, task: TaskConfig) -> str:
    """Return what is true of an image and what the model says, in words."""
    if isinstance(task, SurvivalConfig):
        time, event, _ = target.tolist()
        risk = 1 - float((1 - probabilities).prod())
        truth = f"the event at {time:.1f}" if event else f"none until {time:.1f}"
        return f"truth {truth}, model {risk:.2f} before {task.cuts[-1]:g}"
    if target.ndim == 0:
        # The turns of a pre-training have no names.
        names = task.classes or [f"{90 * k} degrees" for k in range(task.out_channels)]
        said = f"{names[int(probabilities.argmax())]} ({float(probabilities.max()):.2f})"
        return f"truth {names[int(target)]}, model {said}"
    having = zip(task.classes, target.tolist(), probabilities.tolist(), strict=True)
    told = [(f"{label} ({p:.2f})", truth, p >= 0.5) for label, truth, p in having]
    truth = ", ".join(label.partition(" ")[0] for label, there, _ in told if there)
    found = ", ".join(label for label, _, answer in told if answer)
    return f"truth {truth or 'no label'}, model {found or 'no label'}"


def _plane(image: Tensor, target_S: Tensor, flip: bool) -> NDArray[Any]:
    """Return the picture, or the slice of a volume with the most foreground."""
    if image.ndim == 3:
        image = image[..., int((target_S > 0).flatten(0, 1).sum(0).argmax())]
    plane: NDArray[Any] = image.numpy()
    return plane[:, ::-1] if flip else plane
