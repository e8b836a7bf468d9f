"""What there is to say of each task: its losses, its metrics, and what it is for."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from omegaconf import DictConfig, OmegaConf

from common.schema import typed
from common.tasks.losses import OF_GREY, OF_HIDDEN, OF_IMAGES, OF_LABELS, OF_TIMES, OF_VOXELS
from common.tasks.registry import Task, build_task, task_config_type
from configs import CONFIG_FOLDER


@dataclass(frozen=True)
class Card:
    """One task."""

    losses: Collection[str]
    """What it may learn by; the first is the usual one."""
    told: str
    """What it is for, in one sentence."""
    dp: bool = True
    """Whether it trains with differential privacy: a patient's loss hangs on no other patient."""


CARDS: Mapping[str, Card] = MappingProxyType(
    {
        "segmentation": Card(OF_VOXELS, "One class a voxel: where is it?"),
        "classification": Card(OF_IMAGES, "One class an image: which of them is it?"),
        "multilabel": Card(OF_LABELS, "Any of several findings an image: which are there?"),
        "restoration": Card(OF_GREY, "A grey value a voxel: what would a better image show?"),
        "pretraining": Card(OF_HIDDEN, "No label at all: what does an image say of itself?"),
        "survival": Card(OF_TIMES, "A hazard an interval of time: when does it happen?"),
    }
)
"""Every task of the registry."""


def catalogue() -> list[dict[str, Any]]:
    """Return name, losses, metrics, dp and a sentence of every task.

    metrics: by name what each means, of the task's default settings.
    """
    return [
        {
            "name": name,
            "losses": list(card.losses),
            "metrics": {
                metric: about.meaning for metric, about in _usual_task(name).metrics.items()
            },
            "dp": card.dp,
            "told": card.told,
        }
        for name, card in CARDS.items()
    ]


def _usual_task(name: str) -> Task:
    tree = OmegaConf.load(CONFIG_FOLDER / "task" / f"{name}.yaml")
    assert isinstance(tree, DictConfig)
    return build_task(typed(tree, task_config_type(name), "task"))
