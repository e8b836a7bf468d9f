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
from flwr.app import Array, ArrayRecord, Message, RecordDict

from client.fleet import Fleet
from client.node import Node
from common.contract import Released, TrainReply
from common.daemon_log import daemon_log
from common.messages import pack_answer, unpack_answer, unpack_weights

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

    def _hand_in(self, fleet: Fleet, reply: Message, seconds: float) -> None:
        if "weights" not in reply.content or _round_of(reply) != self.round:
            return super()._hand_in(fleet, reply, seconds)
        self.log.warning("round %d is answered wrongly: %s", self.round, self.fault)
        if self.fault == "late":
            time.sleep(self.late_s)
        elif self.fault != "twice":
            reply.content["weights"] = broken(reply.content, self.fault)["weights"]
        super()._hand_in(fleet, reply, seconds)
        if self.fault == "twice":
            try:
                super()._hand_in(fleet, reply, seconds)
            except httpx.HTTPError as error:
                self.log.warning("the second time the centre says: %s", error)
        return None


def _round_of(reply: Message) -> int | None:
    answer = unpack_answer(reply.content)
    return answer.round if isinstance(answer, TrainReply) else None


def broken(records: RecordDict, fault: str) -> RecordDict:
    """Return an answer with its weights broken: a tensor's shape or numbers, or the bytes."""
    if fault == "bytes":
        weights = records.array_records["weights"]
        noise = {name: Array(np.zeros_like(array.numpy())) for name, array in weights.items()}
        return RecordDict({**records, "weights": ArrayRecord(noise)})
    arrays = dict(unpack_weights(records))
    name = sorted(arrays)[0]
    array = arrays[name]
    wrong = np.zeros((*array.shape, 2), array.dtype)
    arrays[name] = wrong if fault == "shape" else np.full_like(array, np.nan)
    # What the site's gate released was honest; this is what comes after it.
    return pack_answer(Released(body=unpack_answer(records), weights=arrays))


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
