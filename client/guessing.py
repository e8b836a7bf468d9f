"""What the model that a round begins with says of a site's images without labels."""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import nn

from client.cohort import Samples
from client.evaluation import predict
from common.tasks.task import Task
from common.tasks.unlabelled import guesses, without_labels


def guessed(
    model: nn.Module,
    samples: Samples,
    task: Task,
    device: torch.device,
    on_batch: Callable[[], None] = lambda: None,
) -> Samples:
    """Return the samples with the model's sure answers where nobody has said anything.

    The images are seen whole and as they are, with task.mirrored mirrored too; training changes
    image and answer together. Where a study learns from labels alone the samples come back as they
    are. on_batch may raise.
    """
    asked = task.config.unlabelled
    if asked is None:
        return samples
    without = without_labels(samples.targets)
    if not bool(without.any()):
        return samples
    seen = replace(samples, images=samples.images[without])
    answers = guesses(predict(model, seen, task, device, on_batch), asked.least_confidence)
    targets = samples.targets.clone()
    targets[without] = answers.reshape(targets[without].shape)
    return replace(samples, targets=targets)
