"""Weights between the centre and this site's node: over the same door, beside the messages."""

import hashlib
from collections.abc import Callable, Iterator

import httpx

from client.progress import StoppedError
from common.contract import RefusalError
from common.framed_files import WeightsReference
from common.framing import PIECE_BYTES, Framed

PATH = "/v1/wardround/weights"
SENT_BYTES = 2**16
"""At once: one deadline holds for all of it, however slow the way."""
MOST_BYTES = 2**32
"""Most weights that a node takes into its memory, 4 GiB."""

GoOn = Callable[[], bool]
"""Called with each piece that has moved; what it returns says whether to go on."""


class Transfers:
    """Brings a study's weights in and out."""

    def __init__(self, client: httpx.Client, go_on: GoOn) -> None:
        """client: of the centre's address."""
        self._client = client
        self._go_on = go_on

    def fetch(self, run: str, reference: WeightsReference) -> bytes:
        """Return the weights that a question names.

        Raises:
            RefusalError: the centre has them no more, or others under their name.
            httpx.HTTPError: the centre cannot be reached.
            StoppedError: it is no longer of use.
        """
        if reference.length_bytes > MOST_BYTES:
            raise RefusalError("weights", "the weights of this round are too long for this site")
        pieces, length, digest = [], 0, hashlib.sha256()
        with self._client.stream("GET", f"{PATH}/{run}/{reference.sha256}") as answer:
            if answer.status_code == httpx.codes.NOT_FOUND:
                raise RefusalError("weights", "the centre no longer has the weights of this round")
            if answer.is_error:
                answer.read()
            answer.raise_for_status()
            for piece in answer.iter_raw(PIECE_BYTES):
                length += len(piece)
                if length > reference.length_bytes:
                    break
                pieces.append(piece)
                digest.update(piece)
                self._check()
        if length != reference.length_bytes or digest.hexdigest() != reference.sha256:
            raise RefusalError("weights", "the weights of this round are not what they are called")
        return b"".join(pieces)

    def hand_in(self, run: str, framed: Framed) -> WeightsReference:
        """Lay weights beside the answer that is about to name them; twice does no harm.

        Raises:
            httpx.HTTPError: the centre cannot be reached, or does not take them.
            StoppedError: they are no longer of use.
        """
        sha256 = hashlib.sha256(framed).hexdigest()
        answer = self._client.put(
            f"{PATH}/{run}/{sha256}",
            content=self._pieces(framed),
            headers={"content-length": str(len(framed))},
        )
        if answer.status_code == httpx.codes.NOT_FOUND:
            raise StoppedError
        answer.raise_for_status()
        return WeightsReference(sha256=sha256, length_bytes=len(framed))

    def _pieces(self, framed: Framed) -> Iterator[bytes]:
        whole = memoryview(framed)
        for at in range(0, len(whole), SENT_BYTES):
            self._check()
            yield bytes(whole[at : at + SENT_BYTES])

    def _check(self) -> None:
        if not self._go_on():
            raise StoppedError
