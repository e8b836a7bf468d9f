"""How the weights of a study travel: in Flower's messages, or in files beside them.

In files one tensor at a time is in memory, however large the model and however many the sites;
server/daemon/tray.py hands them out and takes them in.
"""

import shutil
from pathlib import Path
from typing import Protocol

from flwr.app import RecordDict

from common.contract import Request
from common.files import write_atomic
from common.framed_files import FramedFile, write_framed
from common.framing import Arrays
from common.messages import MessageError, pack_request, unpack_weights, weights_at

FOLDER, DOWN, UP = "weights", "down", "up"
LONGEST = "longest"
"""A file with the length of the longest weights that the study has sent: no update is longer."""


class Weights(Protocol):
    """The way of the weights."""

    def packed(self, request: Request, weights: Arrays) -> RecordDict:
        """Return the records of a question that opens a round with these weights."""
        ...

    def of(self, site: str, answer: RecordDict) -> Arrays:
        """Return the weights of a site's answer; empty where it has none.

        Raises:
            MessageError: they are not there, or are no weights.
        """
        ...

    def used(self, site: str) -> None:
        """Let go of the weights of a site's answers."""
        ...

    def end(self) -> None:
        """Let go of all weights."""
        ...


class InMessages:
    """Weights that travel inside the messages, as in a simulation."""

    def packed(self, request: Request, weights: Arrays) -> RecordDict:
        """As Weights.packed."""
        return pack_request(request, weights)

    def of(self, site: str, answer: RecordDict) -> Arrays:
        """As Weights.of."""
        return unpack_weights(answer)

    def used(self, site: str) -> None:
        """Nothing was kept."""

    def end(self) -> None:
        """Nothing was kept."""


class InFiles:
    """Weights in a study's folder: down/SHA256 for the sites, up/SITE/SHA256 from each."""

    def __init__(self, run: Path) -> None:
        """run: the study's folder."""
        self._folder = run / FOLDER
        self._down, self._up = self._folder / DOWN, self._folder / UP
        self._longest = _longest_in(self._folder)
        self._asked: tuple[int, bool, bool] | None = None
        self._offered: dict[str | None, str] = {}

    def packed(self, request: Request, weights: Arrays) -> RecordDict:
        """As Weights.packed; weights of earlier rounds are offered no more."""
        reference = write_framed(self._down, weights)
        if reference.length_bytes > self._longest:
            self._longest = reference.length_bytes
            write_atomic(self._folder / LONGEST, str(self._longest).encode())
        asked = (request.round, request.evaluate, request.compare)
        if asked != self._asked:
            self._asked, self._offered = asked, {}
        # The whole and the step to it stand side by side.
        self._offered[request.before] = reference.sha256
        for path in self._down.iterdir():
            if path.name not in self._offered.values():
                path.unlink()
        return pack_request(request, weights_at=reference)

    def of(self, site: str, answer: RecordDict) -> Arrays:
        """As Weights.of; each tensor is read when it is asked for."""
        reference = weights_at(answer)
        if reference is None:
            return {}
        try:
            found = FramedFile(self._up / site / reference.sha256)
        except OSError as error:
            raise MessageError("its weights did not arrive beside its answer") from error
        if found.length_bytes != reference.length_bytes:
            raise MessageError("its weights have another length than it said")
        return found

    def used(self, site: str) -> None:
        """Delete what the site handed in."""
        shutil.rmtree(self._up / site, ignore_errors=True)

    def end(self) -> None:
        """Delete what lies beside the messages of the study; its models are elsewhere."""
        shutil.rmtree(self._folder, ignore_errors=True)


def _longest_in(folder: Path) -> int:
    try:
        return int((folder / LONGEST).read_text())
    except (OSError, ValueError):
        return 0
