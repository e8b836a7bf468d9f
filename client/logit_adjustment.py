"""What a site teaches without how frequent its classes are (Menon et al., ICLR 2021, Eq. 10).

Where a class is rare at a site, its steps say first of all that this class is rare. The mean of
such sites is torn between what they say, and forgets what the images show (Zhang et al., ICML
2022).
"""

from dataclasses import replace

import torch
from torch import Tensor

from client.cohort import Samples
from common.study import Study
from common.tasks.task import Task


def log_frequencies(target_N: Tensor, classes: int) -> Tensor:
    """Return the log of each class's frequency, [K], with half an image more of each.

    The half (Krichevsky and Trofimov, 1981) keeps a class that the site lacks from minus infinity.
    """
    counts = torch.bincount(target_N.long(), minlength=classes).float() + 0.5
    return (counts / counts.sum()).log()


def adjusted(task: Task, samples: Samples, study: Study) -> Task:
    """Return the task as the site trains it: logits + share x log frequencies go into the loss.

    The network then has to tell what the frequencies do not, and its own logits are those of
    classes that are equally frequent. Each image's loss hangs on the labels of all others, so a
    private study is refused it.
    """
    share = study.training.logit_adjustment
    if share is None:
        return task
    # An image without a label says nothing of how frequent its class is.
    known = samples.targets[samples.targets >= 0]
    added_K = share * log_frequencies(known, len(study.task.classes))
    return replace(
        task, loss=lambda logits, target: task.loss(logits + added_K.to(logits.device), target)
    )
