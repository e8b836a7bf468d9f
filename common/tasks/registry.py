"""The tasks by name: what may be asked for, and how it is built."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from common.checks import one_of
from common.tasks.classification import ClassificationConfig, build_classification
from common.tasks.config import TaskConfig
from common.tasks.segmentation import SegmentationConfig, build_segmentation
from common.tasks.task import Metric, Sums, Task

__all__ = ["TASKS", "Kind", "Metric", "Sums", "Task", "build_task", "task_config_type"]


@dataclass(frozen=True)
class Kind:
    """A kind of task."""

    config: type[TaskConfig]
    """Its settings."""
    build: Callable[..., Task]
    """From its settings to the task."""


TASKS: Mapping[str, Kind] = MappingProxyType(
    {
        "segmentation": Kind(SegmentationConfig, build_segmentation),
        "classification": Kind(ClassificationConfig, build_classification),
    }
)
"""Every task that a study may ask for."""


def task_config_type(name: str) -> type[TaskConfig]:
    """Return the dataclass of a task's settings.

    Raises:
        ValueError: no task has this name; the message lists those that exist.
    """
    one_of(TASKS, **{"task.name": name})
    return TASKS[name].config


def build_task(config: TaskConfig) -> Task:
    """Return the task that the settings describe.

    Raises:
        ValueError: no task has this name, or the settings are those of another task.
    """
    expected = task_config_type(config.name)
    if not isinstance(config, expected):
        raise ValueError(
            f"task.name={config.name!r} came with {type(config).__name__}; "
            f"give the settings as {expected.__name__}"
        )
    return TASKS[config.name].build(config)
