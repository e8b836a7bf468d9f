"""Save and resume. A resumed run equals one that was never interrupted, byte for byte on a CPU."""

from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor

from common.tensor_files import named_under, read_tensors, write_tensors
from server.records import Progress, ProgressAdapter

CHECKPOINT = "checkpoint.safetensors"
_MODEL, _MOMENTS, _SUMMED = "model/", "moments/", "summed/"


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """Everything that the next round depends on."""

    digest: str
    """Of the study that was run."""
    model: dict[str, Tensor]
    moments: dict[str, Tensor] = field(default_factory=dict)
    summed: dict[str, Tensor] = field(default_factory=dict)
    """Float64 sums of the models of the last rounds, where the study averages them."""
    progress: Progress = field(default_factory=Progress)

    @property
    def rounds_done(self) -> int:
        """Rounds that are full."""
        return len(self.progress.rounds)


def save_checkpoint(folder: Path, checkpoint: Checkpoint) -> None:
    """Write the checkpoint, one file, whole or not at all."""
    tensors = {_MODEL + name: tensor for name, tensor in checkpoint.model.items()}
    tensors |= {_MOMENTS + name: tensor for name, tensor in checkpoint.moments.items()}
    tensors |= {_SUMMED + name: tensor for name, tensor in checkpoint.summed.items()}
    progress = ProgressAdapter.dump_python(checkpoint.progress, mode="json")
    about = {"digest": checkpoint.digest, "progress": progress}
    write_tensors(folder / CHECKPOINT, tensors, about)


def load_checkpoint(folder: Path, digest: str) -> Checkpoint | None:
    """Return the folder's checkpoint, or None if there is none.

    Raises:
        ValueError: the checkpoint belongs to another study.
    """
    path = folder / CHECKPOINT
    if not path.exists():
        return None
    tensors, about = read_tensors(path)
    if about["digest"] != digest:
        raise ValueError(
            f"{path} belongs to study {about['digest'][:12]}, this run is study {digest[:12]}: its "
            "settings were changed; resume with the settings it began with, or use another folder"
        )
    return Checkpoint(
        digest=digest,
        model=named_under(_MODEL, tensors),
        moments=named_under(_MOMENTS, tensors),
        summed=named_under(_SUMMED, tensors),
        progress=ProgressAdapter.validate_python(about["progress"]),
    )
