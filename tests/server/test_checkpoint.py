import resource
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from common.contract import Description, Estimate
from server.checkpoint import CHECKPOINT, Checkpoint, load_checkpoint, save_checkpoint
from server.records import Progress, RoundRecord
from tests.builders import site_round, spent

SPENT = spent(epsilon=1 / 3)
PART = site_round(
    seconds=0.1, before={"dice": Estimate(value=0.1 + 0.2, low=None, high=1.0, n=4)}, privacy=SPENT
)
RECORD = RoundRecord(
    round=1,
    seconds=0.2,
    participants=["st-a"],
    missing={"st-b": "no answer within 5 s"},
    sites={"st-a": PART},
)
ABOUT = Description(site="st-a", patients_train=3, patients_held_out=1, images_train=9, bad_files=0)
PROGRESS = Progress(
    roster={"st-a": ABOUT},
    rounds=[RECORD],
    best_round=0,
    best_value=0.25,
    absent={"st-c": "did not introduce itself"},
    initial={"st-a": PART.before},
)


def checkpoint() -> Checkpoint:
    draws = torch.Generator().manual_seed(0)
    return Checkpoint(
        digest="ab" * 32,
        model={
            "layer.weight": torch.randn(3, 2, generator=draws),
            "norm.num_batches_tracked": torch.tensor(2**53 + 1),
        },
        moments={"first/layer.weight": torch.randn(3, 2, generator=draws, dtype=torch.float64)},
        summed={"layer.weight": torch.randn(3, 2, generator=draws, dtype=torch.float64)},
        progress=PROGRESS,
    )


@contextmanager
def disk_of(most_bytes: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def same_tensors(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor]) -> bool:
    return one.keys() == two.keys() and all(
        tensor.dtype == two[name].dtype and torch.equal(tensor, two[name])
        for name, tensor in one.items()
    )


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    saved = checkpoint()
    save_checkpoint(tmp_path, saved)
    loaded = load_checkpoint(tmp_path, saved.digest)
    assert loaded is not None
    assert same_tensors(loaded.model, saved.model)
    assert same_tensors(loaded.moments, saved.moments)
    assert same_tensors(loaded.summed, saved.summed)
    assert loaded.progress == saved.progress
    assert loaded.rounds_done == 1


def test_a_folder_without_a_checkpoint_has_none(tmp_path: Path) -> None:
    assert load_checkpoint(tmp_path, "ab") is None


def test_a_checkpoint_of_another_study_is_refused(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, checkpoint())
    with pytest.raises(ValueError, match="belongs to study abababababab, this run is study cdcd"):
        load_checkpoint(tmp_path, "cd" * 32)


def test_a_write_that_breaks_off_leaves_the_old_checkpoint(tmp_path: Path) -> None:
    old = checkpoint()
    save_checkpoint(tmp_path, old)
    before = (tmp_path / CHECKPOINT).read_bytes()
    larger = replace(old, model={"layer.weight": torch.zeros(10_000)})
    with disk_of(len(before)), pytest.raises(OSError, match="large"):
        save_checkpoint(tmp_path, larger)
    assert (tmp_path / CHECKPOINT).read_bytes() == before
    save_checkpoint(tmp_path, larger)
    loaded = load_checkpoint(tmp_path, old.digest)
    assert loaded is not None
    assert same_tensors(loaded.model, larger.model)
