"""Numbers of a run as TensorBoard reads them, through tensorboardX: 87 kB, and no TensorFlow."""

from collections.abc import Sequence
from pathlib import Path

from server.tracking.numbers import Event, numbers_of

FOLDER = "tensorboard"


class TensorBoardSink:
    """Writes into the run's own folder."""

    name = "tensorboard"

    def __init__(self, run: Path) -> None:
        from tensorboardX import SummaryWriter

        self._writer = SummaryWriter(str(run / FOLDER), flush_secs=5)

    def take(self, events: Sequence[Event]) -> None:
        """Write what the events tell."""
        for number in (number for event in events for number in numbers_of(event)):
            self._writer.add_scalar(number.name, number.value, number.round, number.time)
        self._writer.flush()

    def close(self) -> None:
        """End the file."""
        self._writer.close()
