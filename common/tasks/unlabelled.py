"""Learning from images without labels: what the model is sure of becomes what they should say.

FixMatch (Sohn et al., NeurIPS 2020): an image's sure answer is learned on the image changed. Here
the answers are those of the model that a round begins with (SemiFL; Diao et al., NeurIPS 2022): the
federation's model is the teacher, so that no site keeps one, and a mask of answers moves with its
image. An image's answers and loss hang on no other image, so a patient's gradient exists.
Legend of shapes: B images, K classes, ... the spatial axes.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from common.tasks.config import UnlabelledConfig

Loss = Callable[[Tensor, Tensor], Tensor]
UNLABELLED = -1
"""In a target: nobody has said, and no model is sure. A class k that a model is sure of stands as
-2 - k, so that what people and what models say can be told apart."""


def without_labels(targets: Tensor) -> Tensor:
    """Return which images of a batch have no label, [B] bool."""
    return (targets < 0).flatten(1).any(1) if targets.ndim > 1 else targets < 0


def guesses(probabilities_BK: Tensor, least_confidence: float) -> Tensor:
    """Return the class that is at least so probable as -2 - class, elsewhere UNLABELLED, [B, ...].

    Sohn et al., 2020, Eq. 3.
    """
    confidence, answers = probabilities_BK.max(1)
    return torch.where(confidence >= least_confidence, -2 - answers, UNLABELLED)


def guess_cross_entropy(logits_BK: Tensor, guessed: Tensor) -> Tensor:
    """Return the cross-entropy to what was guessed, 0 where nothing was, mean over all (Eq. 4).

    guessed: [B, 1, ...] or [B]. What moving an image has added at its border is a class as ever.
    """
    flat = guessed[:, 0] if guessed.ndim == logits_BK.ndim else guessed
    classes = torch.where(flat < UNLABELLED, -2 - flat, flat).long()
    return F.cross_entropy(logits_BK, classes, ignore_index=UNLABELLED, reduction="none").mean()


def with_unlabelled(loss: Loss, of_guesses: Loss, config: UnlabelledConfig) -> Loss:
    """Return the mean over a batch of `loss` of the images with labels, weight x the other's."""

    def mixed(logits: Tensor, target: Tensor) -> Tensor:
        without = without_labels(target)
        parts = []
        for chosen, of, weight in ((~without, loss, 1.0), (without, of_guesses, config.weight)):
            share = float(chosen.float().mean())
            if share:
                parts.append(weight * share * of(logits[chosen], target[chosen]))
        return torch.stack(parts).sum()

    return mixed
