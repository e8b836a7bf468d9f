"""The settings that every task has; a task adds its own (one dataclass beside each task)."""

from collections.abc import Collection
from dataclasses import dataclass, field

from common.checks import in_range, one_of, positive
from common.data_config import DataConfig

EMPTY_CELLS = ("", "n/a", "N/A")
"""What a table has in a cell that says nothing; the second as BIDS writes it."""


@dataclass(frozen=True, kw_only=True)
class LossConfig:
    """What training makes small (common/tasks/losses.py), where it is not the task's usual loss."""

    name: str
    """dice_ce, dice, cross_entropy, focal, tversky, focal_tversky or generalised_dice; of them
    cross_entropy and focal for answers an image. l1, l2 or l1_ssim for grey values,
    hazard for times, nt_xent for pairs of views."""
    class_weights: list[float] | None = None
    """Of dice_ce, cross_entropy and focal: a factor for each class, of a segmentation the
    background's first, of several labels for the images that have one; null: 1."""
    gamma: float | None = None
    """Of focal (null: 2) and focal_tversky (null: 4/3): how much less easy ones count."""
    false_negatives: float | None = None
    """Of tversky and focal_tversky: the weight of what is missed beside what is found wrongly, 0 to
    1; null: 0.7."""
    temperature: float | None = None
    """Of nt_xent (null: 0.5): the smaller, the more the views that are most alike count."""

    def __post_init__(self) -> None:
        for field_name, losses in _LOSSES_WITH.items():
            value = getattr(self, field_name)
            if value is not None and self.name not in losses:
                raise ValueError(
                    f"task.loss.{field_name}={value} has no effect on task.loss.name={self.name}; "
                    f"leave it null, or choose one of: {', '.join(losses)}"
                )
        for field_name in ("gamma", "temperature"):
            value = getattr(self, field_name)
            if value is not None:
                positive(**{f"task.loss.{field_name}": value})
        if self.false_negatives is not None:
            in_range(0.0, 1.0, **{"task.loss.false_negatives": self.false_negatives})
        for place, weight in enumerate(self.class_weights or []):
            positive(**{f"task.loss.class_weights[{place}]": weight})


@dataclass(frozen=True, kw_only=True)
class UnlabelledConfig:
    """How images without labels are learned from (common/tasks/unlabelled.py)."""

    weight: float = 1.0
    """Of the loss of an image without a label, beside one with."""
    least_confidence: float = 0.95
    """How probable an answer must be to be learned from; at least 0.5, below 1."""

    def __post_init__(self) -> None:
        positive(**{"task.unlabelled.weight": self.weight})
        in_range(0.5, 0.9999, **{"task.unlabelled.least_confidence": self.least_confidence})


_LOSSES_WITH = {
    "class_weights": ("dice_ce", "dice", "cross_entropy", "focal"),
    "gamma": ("focal", "focal_tversky"),
    "false_negatives": ("tversky", "focal_tversky"),
    "temperature": ("nt_xent",),
}


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
    loss: LossConfig | None = None
    """null: the task's usual loss."""
    unlabelled: UnlabelledConfig | None = None
    """Patients without labels take part: their images are learned from too; null: they cannot."""
    mirrored: bool | None = None
    """true: wherever the model answers, its answer is the mean of that and of the answer to the
    image mirrored left-right, also where it says what images without labels show. Not for classes
    that are a left and a right. null, false: it is asked once."""

    @property
    def dense(self) -> bool:
        """Whether there is an answer a voxel; else there is one an image."""
        return False

    @property
    def one_class(self) -> bool:
        """Whether an image is of one of the classes, and of no other."""
        return False

    @property
    def grey(self) -> bool:
        """Whether an answer is a grey value; else it is a probability."""
        return False

    @property
    def reads_labels(self) -> bool:
        """Whether an image needs a label, a mask or another column that says what is true."""
        return True

    @property
    def compares_images(self) -> bool:
        """Whether the loss of an image hangs on the others of its batch."""
        return False

    @property
    def guessable(self) -> bool:
        """Whether a model's answer is a class, which it may be sure of."""
        return False

    @property
    def answer_columns(self) -> tuple[str, ...]:
        """Further columns of a manifest that say what is true."""
        return ()

    @classmethod
    def outputs(cls, out_channels: int) -> tuple[int, ...]:
        """How many outputs a network may have, for so many channels of the task."""
        return (out_channels,)

    @property
    def choosing_share(self) -> float:
        """Share of a site's training patients who do not train, and choose how it answers."""
        return 0.0

    @property
    def even_answer(self) -> float:
        """The probability of each output that says nothing."""
        return 1 / self.out_channels

    def check_data(self, data: DataConfig) -> None:
        """Raise ValueError where the task cannot be learned from images made so."""

    def check_loss(self, known: Collection[str]) -> None:
        """Raise ValueError unless the loss is one of these and its weights are of the classes."""
        if self.loss is None:
            return
        one_of(known, **{"task.loss.name": self.loss.name})
        weights = self.loss.class_weights
        if weights is not None and len(weights) != self.out_channels:
            raise ValueError(
                f"task.loss.class_weights={list(weights)} has {len(weights)} numbers, and "
                f"task.out_channels={self.out_channels}; give one a channel"
            )

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
        if self.mirrored and not self.reads_labels:
            raise ValueError(
                f"task.mirrored=true averages answers to a patient's image, and task.name="
                f"{self.name} asks of an image that it makes itself; leave it null"
            )
        if self.unlabelled is not None and not self.guessable:
            raise ValueError(
                f"task.unlabelled learns the class that a model is sure of, and task.name="
                f"{self.name} has no one class to be sure of; leave it null"
            )
