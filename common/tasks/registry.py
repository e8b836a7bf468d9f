"""The tasks by name: what may be asked for, and how it is built."""

from collections.abc import Mapping
from types import MappingProxyType

from common.registry import Entry, build, config_type
from common.tasks.classification import ClassificationConfig, build_classification
from common.tasks.config import TaskConfig
from common.tasks.multilabel import MultilabelConfig, build_multilabel
from common.tasks.pretraining import PretrainingConfig, build_pretraining
from common.tasks.restoration import RestorationConfig, build_restoration
from common.tasks.segmentation import SegmentationConfig, build_segmentation
from common.tasks.survival import SurvivalConfig, build_survival
from common.tasks.task import Metric, Sums, Task

__all__ = ["TASKS", "Metric", "Sums", "Task", "build_task", "task_config_type"]


TASKS: Mapping[str, Entry[TaskConfig, Task]] = MappingProxyType(
    {
        "segmentation": Entry(SegmentationConfig, build_segmentation),
        "classification": Entry(ClassificationConfig, build_classification),
        "multilabel": Entry(MultilabelConfig, build_multilabel),
        "restoration": Entry(RestorationConfig, build_restoration),
        "pretraining": Entry(PretrainingConfig, build_pretraining),
        "survival": Entry(SurvivalConfig, build_survival),
    }
)
"""Every task that a study may ask for."""


def task_config_type(name: str) -> type[TaskConfig]:
    """Return the dataclass of a task's settings.

    Raises:
        ValueError: no task has this name; the message lists those that exist.
    """
    return config_type(TASKS, "task", name)


def build_task(config: TaskConfig) -> Task:
    """Return the task that the settings describe.

    Raises:
        ValueError: no task has this name, or the settings are those of another task.
    """
    return build(TASKS, "task", config)
