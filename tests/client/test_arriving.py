"""The model of a round, whole or as a step: the same bytes, or a refusal without the base."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from client.arriving import FILE, Arrivals
from common.compression_config import CodecConfig
from common.contract import RefusalError, Request, StudyReference
from common.state import Arrays, arrays_of, digest_of
from server.stepping import Step, stepped

CODEC = CodecConfig(numbers="int8")
STUDY = StudyReference(overrides=[], digest="a" * 64)


def model(seed: int) -> dict[str, Tensor]:
    return {"w": torch.randn(20, generator=torch.Generator().manual_seed(seed))}


def asked(number: int, before: str | None = None, study: StudyReference = STUDY) -> Request:
    return Request(study=study, round=number, before=before)


def same(one: Arrays, other: Arrays) -> bool:
    return set(one) == set(other) and all(np.array_equal(one[n], other[n]) for n in one)


@pytest.fixture
def step() -> tuple[dict[str, Tensor], Step]:
    """Return the model of the second round, and the step that leads there."""
    return stepped(model(0), model(1), None, CODEC, 0)


def test_a_step_gives_the_bytes_of_the_whole(
    tmp_path: Path, step: tuple[dict[str, Tensor], Step]
) -> None:
    arrivals = Arrivals(tmp_path)
    first = arrivals.model(asked(1), arrays_of(model(0)), CODEC)
    assert same(first, arrays_of(model(0)))
    for _ in range(2):
        # The second time the site has moved on already, as after a death in the round.
        found = arrivals.model(asked(2, step[1].before), step[1].arrays, CODEC)
        assert same(found, arrays_of(step[0]))


@pytest.mark.parametrize("lost", ["file", "study", "model"])
def test_a_step_from_a_model_that_is_not_here_is_refused(
    lost: str, tmp_path: Path, step: tuple[dict[str, Tensor], Step]
) -> None:
    arrivals = Arrivals(tmp_path)
    arrivals.model(asked(1), arrays_of(model(7 if lost == "model" else 0)), CODEC)
    if lost == "file":
        (tmp_path / FILE).unlink()
    study = StudyReference(overrides=[], digest="b" * 64) if lost == "study" else STUDY
    with pytest.raises(RefusalError, match="gets the whole in the next"):
        arrivals.model(asked(2, step[1].before, study), step[1].arrays, CODEC)
    whole = arrivals.model(asked(3, study=study), arrays_of(step[0]), CODEC)
    assert same(whole, arrays_of(step[0]))


def test_a_step_that_cannot_be_read_changes_nothing(
    tmp_path: Path, step: tuple[dict[str, Tensor], Step]
) -> None:
    arrivals = Arrivals(tmp_path)
    arrivals.model(asked(1), arrays_of(model(0)), CODEC)
    broken = {name: array[:-1] for name, array in step[1].arrays.items()}
    with pytest.raises(RefusalError, match="cannot be read"):
        arrivals.model(asked(2, digest_of(arrays_of(model(0)))), broken, CODEC)
    found = arrivals.model(asked(2, step[1].before), step[1].arrays, CODEC)
    assert same(found, arrays_of(step[0]))


def test_another_step_of_the_same_round_is_not_taken_for_the_one_that_came(tmp_path: Path) -> None:
    arrivals = Arrivals(tmp_path)
    base = arrays_of(model(0))
    one, other = (stepped(model(0), model(seed), None, CODEC, 0)[1] for seed in (1, 2))
    arrivals.model(asked(1), base, CODEC)
    arrivals.model(asked(2, one.before), one.arrays, CODEC)
    # The site has moved on by the first; from there the second does not lead on.
    with pytest.raises(RefusalError, match="gets the whole in the next"):
        arrivals.model(asked(2, other.before), other.arrays, CODEC)
