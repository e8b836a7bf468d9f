"""Save and resume. A resumed run equals one that was never interrupted, byte for byte on a CPU."""

from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor

from common.state import arrays_of, digest_of
from common.study import Study
from common.tensor_files import named_under, read_tensors, write_tensors
from server.records import Progress, ProgressAdapter
from server.stepping import Step

CHECKPOINT = "checkpoint.safetensors"
_MODEL, _MOMENTS, _SUMMED, _LEFT, _CODED = "model/", "moments/", "summed/", "left/", "coded"


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """Everything that the next round depends on."""

    digest: str
    """Of the study that was run."""
    model: dict[str, Tensor]
    moments: dict[str, Tensor] = field(default_factory=dict)
    summed: dict[str, Tensor] = field(default_factory=dict)
    """Float64 sums of the models of the last rounds, where the study averages them."""
    step: Step | None = None
    """That led to the model, where the study sends steps."""
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
    if checkpoint.step is not None:
        tensors |= {_LEFT + name: tensor for name, tensor in checkpoint.step.left.items()}
        tensors[_CODED] = checkpoint.step.coded
        about["before"] = checkpoint.step.before
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
    step = None
    if _CODED in tensors:
        left = named_under(_LEFT, tensors)
        step = Step(before=about["before"], coded=tensors[_CODED], left=left)
    return Checkpoint(
        digest=digest,
        model=named_under(_MODEL, tensors),
        moments=named_under(_MOMENTS, tensors),
        summed=named_under(_SUMMED, tensors),
        step=step,
        progress=ProgressAdapter.validate_python(about["progress"]),
    )


def check_beginning(study: Study, begun: Checkpoint | None) -> None:
    """Refuse a study whose first weights come from another, and are not here or are others.

    begun: what the study's folder has; None where it has nothing.

    Raises:
        ValueError: they are to be asked for in another way.
    """
    if begun is None and study.model.members is not None:
        raise ValueError(
            f"model.members={study.model.members} is an ensemble of networks that sites have "
            "trained, and none are here; ask for it by wardround-server turns RUN --kind ensemble"
        )
    if study.begins_with is None or (begun is not None and begun.rounds_done):
        return
    found = None if begun is None else digest_of(arrays_of(begun.model))
    if found != study.begins_with:
        here = "none are here" if found is None else f"those here are {found[:12]}"
        raise ValueError(
            f"begins_with={study.begins_with[:12]} names the weights of another study, and {here}; "
            "leave it null, or ask for the study by wardround-server turns"
        )
