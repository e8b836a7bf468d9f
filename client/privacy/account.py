"""The site's account of privacy: private steps, written before their update leaves."""

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO

from common.accounting import PrivateSteps, epsilon_of
from common.checks import in_range, positive

ACCOUNT = "privacy_account.jsonl"


@dataclass(frozen=True)
class Account:
    """The account of one site's data set; a file of JSON lines, only ever appended to.

    Epsilon of the file never goes down: a line is written and fsynced before the update leaves.
    A line carries the key of its release, so that the same update told twice is charged once.
    """

    folder: Path

    def charge(self, release: str, steps: PrivateSteps) -> None:
        """Add the steps of a release, unless this release is already in the account."""
        if release in self._entries():
            return
        line = json.dumps({"release": release, **asdict(steps)}, sort_keys=True)
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / ACCOUNT).open("ab+") as file:
            self._drop_half_line(file)
            file.write(line.encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())

    def history(self) -> list[PrivateSteps]:
        """Return all charged steps, oldest first."""
        return list(self._entries().values())

    def epsilon(self, delta: float) -> float:
        """Return the epsilon spent so far at delta."""
        return epsilon_of(self.history(), delta)

    def steps(self) -> int:
        """Return the private steps taken so far."""
        return sum(entry.steps for entry in self.history())

    @staticmethod
    def _drop_half_line(file: BinaryIO) -> None:
        file.seek(0)
        content = file.read()
        file.truncate(content.rfind(b"\n") + 1)

    def _entries(self) -> dict[str, PrivateSteps]:
        path = self.folder / ACCOUNT
        if not path.exists():
            return {}
        lines = path.read_bytes().split(b"\n")
        # A kill in the middle of a write leaves a last line without its end: nothing had left yet.
        whole = lines[:-1]
        entries: dict[str, PrivateSteps] = {}
        for number, line in enumerate(whole, start=1):
            try:
                release, steps = _entry(line)
                entries[release] = steps
            except (ValueError, TypeError, KeyError) as error:
                raise ValueError(
                    f"line {number} of {path} is not an entry of a privacy account; the account "
                    "must be whole before this site trains: restore the file from a backup"
                ) from error
        return entries


def _entry(line: bytes) -> tuple[str, PrivateSteps]:
    fields = dict(json.loads(line))
    release = str(fields.pop("release"))
    steps = PrivateSteps(**fields)
    # Not by type alone: with a noise of NaN the accountant would never end.
    positive(noise_multiplier=steps.noise_multiplier, steps=steps.steps)
    in_range(0.0, 1.0, sample_rate=steps.sample_rate)
    return release, steps
