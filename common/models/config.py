"""The settings that every model has; a family adds its own (one dataclass beside each builder)."""

import re
from dataclasses import dataclass
from typing import Any

from common.checks import in_range, not_negative, one_of, positive

_FILE, _SHA256 = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*"), re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, kw_only=True)
class StartConfig:
    """Weights that the network starts from, in place of random ones (common/models/start.py)."""

    file: str
    """Name of a file in the folder of weights of every place: safetensors, or a state dict that
    torch.load reads with weights_only=True."""
    sha256: str
    """Of the file, 64 hexadecimal digits."""
    layout: str = "wardround"
    """Whose names its tensors have: wardround, monai (a bundle's models/model.pt), torchvision or
    timm."""
    fresh: list[str] | None = None
    """What starts at random all the same: head, norms, or names (* for any letters); null: the
    head. Every other tensor must be in the file."""

    def __post_init__(self) -> None:
        one_of(("wardround", "monai", "torchvision", "timm"), **{"model.start.layout": self.layout})
        if not _FILE.fullmatch(self.file):
            raise ValueError(
                f"model.start.file={self.file!r} is no plain file name; give the name alone, the "
                "folder is each place's own"
            )
        if not _SHA256.fullmatch(self.sha256):
            raise ValueError(
                f"model.start.sha256={self.sha256!r} is no SHA-256; give what sha256sum prints: 64 "
                "hexadecimal digits"
            )


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """What the registry needs to build a network."""

    name: str
    """Name in the registry (common/models/registry.py)."""
    spatial_dims: int = 2
    """2 or 3."""
    in_channels: int = 1
    """Channels of the image."""
    out_channels: int = 2
    """Logits per voxel or per image: the classes of the task, background included. 1 where one
    class is segmented: that class' own, of which the sigmoid is taken."""
    norm: str = "group"
    """group, instance, or batch. batch is refused with differential privacy."""
    norm_groups: int = 8
    """Largest number of groups of norm=group; a layer takes the largest divisor of its channels."""
    batch_norm_policy: str | None = None
    """With norm=batch, what is done with its parameters and running statistics, to be declared:
    average (the sites' are averaged) or local (each site keeps its own: FedBN, Li et al., ICLR
    2021). null with every other norm."""
    test_time_prior: float | None = None
    """With norm=batch: for how many images the running statistics count beside those of the image
    that is looked at (common/models/adapted_norm.py); null: for all."""
    local: list[str] | None = None
    """What each site keeps for itself: head, the network's last layer (FedPer, Arivazhagan et al.,
    2019); norms, its norm layers (as FedBN does); or names of tensors (* for any letters). null:
    nothing."""
    standardised: bool | None = None
    """true: every convolution's weights are standardised (Qiao et al., 2019; Brock, De and Smith,
    ICLR 2021), which with group norm bears the noise of privacy better. null: they are not."""
    dropout: float = 0.0
    """Probability that a unit is dropped in training."""
    covariates: dict[str, list[Any]] | None = None
    """As data.covariates: what the network is told of a patient beside the image
    (common/models/late_fusion.py)."""
    residual: bool | None = None
    """With a task whose answers are grey values: whether the network learns what is to be added to
    its image (Zhang et al., DnCNN, TIP 2017), and not the whole answer. null: the whole."""
    members: int | None = None
    """An ensemble of so many such networks: the answer is the mean of theirs, in probabilities, and
    nothing is trained (`wardround-server turns RUN --kind ensemble`). null: one network."""
    start: StartConfig | None = None
    """Weights to start from; null: random ones."""
    trained: list[str] | None = None
    """What is trained, and travels: head, norms, or names (* for any letters); the rest stays as it
    starts. null: all, or with lora_rank the head."""
    lora_rank: int | None = None
    """LoRA (Hu et al., ICLR 2022): beside `trained`, each larger layer learns a matrix of this rank
    that is added to its weight; null: none."""

    @property
    def margin(self) -> int:
        """Voxels on each side of a training segment that the network sees beside it."""
        return 0

    @property
    def grid(self) -> int:
        """Training segments begin at multiples of so many voxels of their image."""
        return 1

    def __post_init__(self) -> None:
        one_of((2, 3), **{"model.spatial_dims": self.spatial_dims})
        one_of(("group", "instance", "batch"), **{"model.norm": self.norm})
        positive(**{"model.in_channels": self.in_channels, "model.out_channels": self.out_channels})
        positive(**{"model.norm_groups": self.norm_groups})
        in_range(0.0, 0.95, **{"model.dropout": self.dropout})
        if self.members is not None:
            positive(**{"model.members": self.members})
        if self.lora_rank is not None:
            positive(**{"model.lora_rank": self.lora_rank})
        if self.test_time_prior is not None:
            not_negative(**{"model.test_time_prior": self.test_time_prior})
            if self.norm != "batch":
                raise ValueError(
                    f"model.test_time_prior={self.test_time_prior:g} has no effect with "
                    f"model.norm={self.norm}, which keeps no statistics; leave it null or choose "
                    "model.norm=batch"
                )
        if self.norm == "batch":
            if self.batch_norm_policy is None:
                raise ValueError(
                    "model.norm=batch needs model.batch_norm_policy=average or local, what is done "
                    "with its statistics; with privacy choose model.norm=group or instance instead"
                )
            one_of(("average", "local"), **{"model.batch_norm_policy": self.batch_norm_policy})
        elif self.batch_norm_policy is not None:
            raise ValueError(
                f"model.batch_norm_policy={self.batch_norm_policy} has no effect with "
                f"model.norm={self.norm}; leave it null or choose model.norm=batch"
            )


def check_widths(
    name: str, values: list[int], exactly: int | None = None, at_least: int = 1
) -> None:
    """Raise ValueError unless a setting has as many positive numbers as a network needs."""
    positive(**{f"model.{name}[{place}]": value for place, value in enumerate(values)})
    fits = len(values) >= at_least if exactly is None else len(values) == exactly
    if not fits:
        wanted = f"{at_least} or more" if exactly is None else f"{exactly}"
        raise ValueError(f"model.{name}={list(values)} has {len(values)} numbers; give {wanted}")
