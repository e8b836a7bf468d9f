"""What the sites tell of themselves while they work: one small file a site, the newest word only.

The listener writes it, the rounds read it: which round of which study, and that it moves.
"""

import time
from dataclasses import asdict, dataclass
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from common.files import read_json, write_json

FOLDER = "presence"
MOST_STEPS = 10**9
HERE_S = 30.0
"""A site that told something so lately is connected."""


@dataclass(frozen=True, kw_only=True)
class Word:
    """What a site says of itself; sent by its node every few seconds."""

    session: str
    """Name of the node's connection: in another one it has lost what it had been sent."""
    run: str = ""
    """Folder name of the run whose message the site works on; empty while it waits."""
    round: int = 0
    beats: int = 0
    """Spans of time in which it did a batch of the round."""

    def __post_init__(self) -> None:
        if len(self.session) > 64 or len(self.run) > 200:
            raise ValueError("a name in it is too long")
        if not all(0 <= count <= MOST_STEPS for count in (self.round, self.beats)):
            raise ValueError("a count in it is not possible")


@dataclass(frozen=True, kw_only=True)
class Heard:
    """The newest word of a site, and when something in it last changed."""

    word: Word
    heard_at: float
    """Unix time of the newest word."""
    moved_at: float
    """Unix time of the newest word that told something new."""


_Words, _Heards = TypeAdapter(Word), TypeAdapter(Heard)


class Presence:
    """The newest word of every site."""

    def __init__(self, home: Path) -> None:
        self._folder = home / FOLDER

    def hear(self, site: str, word: Word) -> None:
        """Keep a site's word."""
        now, before = time.time(), self.of(site)
        moved = now if before is None or _work(before.word) != _work(word) else before.moved_at
        self._folder.mkdir(exist_ok=True)
        heard = Heard(word=word, heard_at=now, moved_at=moved)
        write_json(self._folder / f"{site}.json", asdict(heard))

    def of(self, site: str) -> Heard | None:
        """Return the newest word of a site; None if there is none that can be read."""
        try:
            return _Heards.validate_python(read_json(self._folder / f"{site}.json"))
        except (OSError, ValueError):
            return None


def _work(word: Word) -> tuple[str, int, int]:
    # Not the session: a site that only begins new ones does not move.
    return word.run, word.round, word.beats


def word_from(raw: bytes) -> Word:
    """Return a word as it arrives.

    Raises:
        ValueError: it is not one.
    """
    try:
        return _Words.validate_json(raw)
    except ValidationError as error:
        raise ValueError(f"not a site's word: {error.errors()[0]['msg']}") from error
