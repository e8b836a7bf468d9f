"""The settings that every task has; a task adds its own (one dataclass beside each task)."""

from dataclasses import dataclass, field

from common.checks import positive


@dataclass(frozen=True, kw_only=True)
class TaskConfig:
    """What is learned."""

    name: str
    """Name in the registry (common/tasks/registry.py)."""
    classes: list[str] = field(default_factory=list)
    """Names of the classes; for segmentation without the background. Metrics carry them, so each
    is a word of letters, digits and underscores."""
    out_channels: int = 2
    """Logits per voxel or per image: the classes, and for segmentation the background."""
    headline: str = ""
    """The metric that tables lead with and the best model is chosen by."""

    def __post_init__(self) -> None:
        positive(**{"task.out_channels": self.out_channels})
        for name in self.classes:
            if not name.isidentifier():
                raise ValueError(
                    f"task.classes has {name!r}, which cannot be part of a metric's name; "
                    "use letters, digits and underscores, and no digit first"
                )
        if len(set(self.classes)) != len(self.classes):
            raise ValueError(
                f"task.classes={list(self.classes)} names a class twice; give each its own name"
            )
