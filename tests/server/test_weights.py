from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from common.contract import Released, Request, StudyReference, TrainReply
from common.framed_files import WeightsReference, write_framed
from common.messages import MessageError, pack_answer, put_beside, unpack_weights, weights_at
from server.weights import LONGEST, InFiles, InMessages, Weights

ASKED = Request(study=StudyReference(overrides=[], digest="d"), round=1)
FIRST = {"w": np.arange(6, dtype=np.float32).reshape(2, 3), "n": np.array(3)}
SECOND = {name: array + 1 for name, array in FIRST.items()}
DONE = TrainReply(site="st-a", round=1, patients=1, steps=1, seconds=0.0)


def same(left: object, right: dict[str, np.ndarray]) -> bool:
    found = dict(left)  # type: ignore[call-overload]
    return found.keys() == right.keys() and all(
        found[n].dtype == right[n].dtype and np.array_equal(found[n], right[n]) for n in right
    )


def test_in_messages_they_come_as_they_went() -> None:
    way: Weights = InMessages()
    assert same(unpack_weights(way.packed(ASKED, FIRST)), FIRST)
    assert same(way.of("st-a", pack_answer(Released(body=DONE, weights=FIRST))), FIRST)


def test_in_files_a_message_names_the_newest_weights_alone(tmp_path: Path) -> None:
    way = InFiles(tmp_path)
    for weights in (FIRST, FIRST, SECOND):
        records = way.packed(ASKED, weights)
        named = weights_at(records)
        assert named is not None
        assert not records.array_records
        assert [p.name for p in (tmp_path / "weights" / "down").iterdir()] == [named.sha256]


def answered(folder: Path, site: str) -> tuple[InFiles, WeightsReference]:
    return InFiles(folder), write_framed(folder / "weights" / "up" / site, SECOND)


def test_in_files_an_answer_has_the_weights_that_it_names(tmp_path: Path) -> None:
    way, named = answered(tmp_path, "st-a")
    answer = pack_answer(Released(body=DONE, weights=SECOND))
    put_beside(answer, named)
    assert same(way.of("st-a", answer), SECOND)
    # Another site's are not its own.
    with pytest.raises(MessageError, match="did not arrive"):
        way.of("st-b", answer)
    way.used("st-a")
    with pytest.raises(MessageError, match="did not arrive"):
        way.of("st-a", answer)


def test_in_files_weights_inside_an_answer_are_not_looked_at(tmp_path: Path) -> None:
    assert InFiles(tmp_path).of("st-a", pack_answer(Released(body=DONE, weights=FIRST))) == {}


def test_at_the_end_nothing_is_left(tmp_path: Path) -> None:
    way, _ = answered(tmp_path, "st-a")
    way.packed(ASKED, FIRST)
    way.end()
    assert list(tmp_path.iterdir()) == []


def test_the_whole_and_the_step_to_it_are_offered_side_by_side(tmp_path: Path) -> None:
    way = InFiles(tmp_path)
    onward = replace(ASKED, before="c" * 64)
    whole, step = weights_at(way.packed(ASKED, FIRST)), weights_at(way.packed(onward, SECOND))
    assert whole is not None
    assert step is not None
    down = tmp_path / "weights" / "down"
    assert {p.name for p in down.iterdir()} == {whole.sha256, step.sha256}
    later = weights_at(way.packed(replace(ASKED, round=ASKED.round + 1), SECOND))
    assert later is not None
    assert [p.name for p in down.iterdir()] == [later.sha256]


def test_the_longest_weights_of_a_study_are_known_though_steps_follow(tmp_path: Path) -> None:
    long = {"w": np.zeros(5000, np.float32)}
    InFiles(tmp_path).packed(ASKED, long)
    known = int((tmp_path / "weights" / LONGEST).read_text())
    assert known > 20_000
    # Also by a server that began anew.
    InFiles(tmp_path).packed(replace(ASKED, round=9), FIRST)
    assert int((tmp_path / "weights" / LONGEST).read_text()) == known
