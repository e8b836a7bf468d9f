import json
from pathlib import Path

import pytest

from server.presence import FOLDER, Presence, Word, word_from

WORD = Word(session="s1", run="r", round=2, beats=3)


def test_the_newest_word_stands_and_its_last_move(tmp_path: Path) -> None:
    presence = Presence(tmp_path)
    assert presence.of("st-a") is None
    presence.hear("st-a", WORD)
    first = presence.of("st-a")
    presence.hear("st-a", WORD)
    second = presence.of("st-a")
    assert first is not None
    assert second is not None
    assert second.word == WORD
    assert second.heard_at > first.heard_at
    assert second.moved_at == first.moved_at
    presence.hear("st-a", Word(session="s1", run="r", round=2, beats=4))
    third = presence.of("st-a")
    assert third is not None
    assert third.moved_at > first.moved_at
    assert presence.of("st-b") is None


def test_a_broken_file_is_as_none(tmp_path: Path) -> None:
    (tmp_path / FOLDER).mkdir()
    (tmp_path / FOLDER / "st-a.json").write_text("{")
    assert Presence(tmp_path).of("st-a") is None


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"[]",
        b"{}",
        b'{"session": 3}',
        json.dumps({"session": "s" * 65}).encode(),
        json.dumps({"session": "s", "run": "r" * 201}).encode(),
        json.dumps({"session": "s", "beats": -1}).encode(),
        json.dumps({"session": "s", "round": 10**10}).encode(),
    ],
)
def test_what_is_no_word_is_refused(raw: bytes) -> None:
    with pytest.raises(ValueError, match="not a site"):
        word_from(raw)
