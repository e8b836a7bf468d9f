"""A site's node that hands its answers in wrongly: twice, too late, or broken.

It has a real site's key, so that the centre lets it in.

    python -m simulation.chaos.rogue STATE_FOLDER SOCKET FAULT ROUND SECONDS
"""

import signal
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np
from flwr.app import Message, RecordDict
from flwr.supercore.run import Run

from client.node import Centre, Node
from common.contract import TrainReply
from common.daemon_log import daemon_log
from common.framing import framed
from common.messages import WEIGHTS, put_in, unpack_answer, unpack_weights

FAULTS = ("twice", "late", "shape", "bytes", "nan")


@dataclass
class Rogue(Node):
    """A node whose answer of one round is handed in wrongly."""

    fault: str = "twice"
    """One of FAULTS."""
    round: int = 2
    """The round whose update is concerned."""
    late_s: float = 0.0
    """With fault=late: how long it is kept back."""

    def _hand_in(self, centre: Centre, run: Run, reply: Message, seconds: float) -> None:
        if WEIGHTS not in reply.content or _round_of(reply) != self.round:
            return super()._hand_in(centre, run, reply, seconds)
        self.log.warning("round %d is answered wrongly: %s", self.round, self.fault)
        if self.fault == "late":
            time.sleep(self.late_s)
        elif self.fault != "twice":
            put_in(reply.content, broken(reply.content, self.fault))
        super()._hand_in(centre, run, reply, seconds)
        if self.fault == "twice":
            try:
                super()._hand_in(centre, run, reply, seconds)
            except httpx.HTTPError as error:
                self.log.warning("the second time the centre says: %s", error)
        return None


def _round_of(reply: Message) -> int | None:
    answer = unpack_answer(reply.content)
    return answer.round if isinstance(answer, TrainReply) else None


def broken(records: RecordDict, fault: str) -> bytes:
    """Return the weights of an answer, broken: a tensor's shape or numbers, or the bytes.

    What the site's gate released was honest; this is what comes after it.
    """
    arrays = dict(unpack_weights(records))
    if fault == "bytes":
        return bytes(sum(array.nbytes for array in arrays.values()))
    name = sorted(arrays)[0]
    array = arrays[name]
    wrong = np.zeros((*array.shape, 2), array.dtype)
    arrays[name] = wrong if fault == "shape" else np.full_like(array, np.nan)
    return framed(arrays)


def main() -> None:
    """Run until SIGTERM."""
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    state, socket, fault, round_number, late_s = sys.argv[1:]
    rogue = Rogue(Path(state), Path(socket), daemon_log("node"), ended)
    rogue.fault, rogue.round, rogue.late_s = fault, int(round_number), float(late_s)
    rogue.run()


if __name__ == "__main__":
    main()
