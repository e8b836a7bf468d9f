"""The model of a round, whole or as a step: the same bytes, or a refusal without the base."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from client.arriving import FOLDER, KEPT, Arrivals
from common.compression_config import CodecConfig
from common.contract import NO_BASE, RefusalError, Request, StudyReference
from common.framed_files import layout_of
from common.state import Arrays, arrays_of, digest_of
from server.stepping import Step, stepped

CODEC = CodecConfig(numbers="int8")
STUDY = StudyReference(overrides=[], digest="a" * 64)
Stepped = tuple[dict[str, Tensor], Step]


def model(seed: int) -> dict[str, Tensor]:
    return {"w": torch.randn(20, generator=torch.Generator().manual_seed(seed))}


LAYOUT = layout_of(arrays_of(model(0)))


def asked(number: int, before: str | None = None, study: StudyReference = STUDY) -> Request:
    return Request(study=study, round=number, before=before)


def same(one: Arrays, other: Arrays) -> bool:
    return set(one) == set(other) and all(np.array_equal(one[n], other[n]) for n in one)


class Site:
    """A site's arrivals, of which the last is the model that it has."""

    def __init__(self, folder: Path) -> None:
        self.arrivals = Arrivals(folder)

    def whole(self, state: dict[str, Tensor], study: StudyReference = STUDY) -> Arrays:
        return self.arrivals.model(asked(1, study=study), arrays_of(state), CODEC, LAYOUT)

    def step(self, step: Step, study: StudyReference = STUDY) -> Arrays:
        return self.arrivals.model(asked(2, step.before, study), step.arrays, CODEC, LAYOUT)


@pytest.fixture
def step() -> Stepped:
    """Return the model of the second round, and the step that leads there."""
    return stepped(model(0), model(1), None, CODEC, 0)


def test_a_step_gives_the_bytes_of_the_whole(tmp_path: Path, step: Stepped) -> None:
    site = Site(tmp_path)
    assert same(site.whole(model(0)), arrays_of(model(0)))
    for _ in range(2):
        # The second time the site has moved on already, as after a death in the round.
        assert same(site.step(step[1]), arrays_of(step[0]))


@pytest.mark.parametrize("lost", ["file", "cut", "study", "model"])
def test_a_step_from_a_model_that_is_not_here_is_refused_and_the_whole_heals_it(
    lost: str, tmp_path: Path, step: Stepped
) -> None:
    site = Site(tmp_path)
    site.whole(model(7 if lost == "model" else 0))
    (file,) = (tmp_path / FOLDER).iterdir()
    if lost == "file":
        file.unlink()
    if lost == "cut":
        file.write_bytes(file.read_bytes()[:20])
    study = StudyReference(overrides=[], digest="b" * 64) if lost == "study" else STUDY
    with pytest.raises(RefusalError) as refused:
        site.step(step[1], study)
    assert refused.value.code == NO_BASE
    assert same(site.whole(step[0], study), arrays_of(step[0]))


def test_studies_that_take_turns_do_not_lose_each_others_model(
    tmp_path: Path, step: Stepped
) -> None:
    site, other = Site(tmp_path), StudyReference(overrides=[], digest="c" * 64)
    site.whole(model(0))
    site.whole(model(3), other)
    assert same(site.step(step[1]), arrays_of(step[0]))


def test_only_the_newest_studies_take_room(tmp_path: Path) -> None:
    site = Site(tmp_path)
    for digit in "0123456789":
        site.whole(model(0), StudyReference(overrides=[], digest=digit * 64))
    kept = sorted(file.name[0] for file in (tmp_path / FOLDER).iterdir())
    assert len(kept) == KEPT
    assert "9" in kept


def test_a_step_that_cannot_be_read_changes_nothing(tmp_path: Path, step: Stepped) -> None:
    site = Site(tmp_path)
    site.whole(model(0))
    broken = {name: array[:-1] for name, array in step[1].arrays.items()}
    before = digest_of(arrays_of(model(0)))
    with pytest.raises(RefusalError, match="cannot be read"):
        site.arrivals.model(asked(2, before), broken, CODEC, LAYOUT)
    assert same(site.step(step[1]), arrays_of(step[0]))


def test_another_step_of_the_same_round_is_not_taken_for_the_one_that_came(
    tmp_path: Path,
) -> None:
    site = Site(tmp_path)
    one, other = (stepped(model(0), model(seed), None, CODEC, 0)[1] for seed in (1, 2))
    site.whole(model(0))
    site.step(one)
    # The site has moved on by the first; from there the second does not lead on.
    with pytest.raises(RefusalError, match="lead on from"):
        site.step(other)


@pytest.mark.parametrize("strange", [{"v": torch.zeros(20)}, {"w": torch.zeros(21)}, {}])
def test_a_model_of_another_form_is_not_kept(strange: dict[str, Tensor], tmp_path: Path) -> None:
    with pytest.raises(RefusalError, match="do not fit the study's model"):
        Site(tmp_path).whole(strange)
    assert not (tmp_path / FOLDER).exists()
