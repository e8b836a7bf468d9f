"""Records a command's terminal as docs/pictures/simulate.svg, sped up: `make recording`.

    python docs/recording.py [COMMAND ...]

The command runs in a terminal of its own, and what it writes is kept with the time of each piece.
Then time is made so much shorter that it ends after LENGTH_S, pieces that one picture would show
are put together, and svg-term (npm) draws it as one SVG that moves by itself and loads nothing. How
many times it was sped up is printed, for who writes it below the picture.
"""

import json
import os
import pty
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

PICTURE = Path(__file__).parent / "pictures" / "simulate.svg"
COMMAND = "wardround-sim experiment=virtual_mri"
DRAW = ("npx", "--yes", "svg-term-cli@2.1.1", "--no-cursor", "--window", "--padding", "12")
COLUMNS, LINES = 90, 22
LENGTH_S = 20.0
"""Seconds of the recording, without what is typed and the last picture."""
PICTURE_S = 0.25
"""Seconds of the sped-up recording between two of its pictures."""
LAST_S = 6.0
"""Seconds that the last picture stays before all begins anew."""
Piece = tuple[float, str]
"""What was written, and when: seconds since the beginning."""


def record(command: Sequence[str]) -> list[Piece]:
    """Run a command in a terminal and return what it wrote.

    Raises:
        SystemExit: the command failed.
    """
    pieces: list[Piece] = []
    began = time.monotonic()

    def keep(descriptor: int) -> bytes:
        written = os.read(descriptor, 65536)
        pieces.append((time.monotonic() - began, written.decode(errors="replace")))
        return written

    os.environ |= {"COLUMNS": str(COLUMNS), "LINES": str(LINES), "TERM": "xterm-256color"}
    code = os.waitstatus_to_exitcode(pty.spawn([*command], keep))
    if code:
        sys.exit(f"{shlex.join(command)} ended with {code}; nothing is recorded")
    return pieces


def speed_of(pieces: Sequence[Piece]) -> float:
    """Return how many times faster it is to be shown; 1 of what is short."""
    return max(pieces[-1][0] / LENGTH_S, 1.0)


def sped_up(pieces: Sequence[Piece]) -> Iterator[Piece]:
    """Yield the pieces of each picture as one, at their shorter times."""
    speed, due, text = speed_of(pieces), 0.0, ""
    for at, written in pieces:
        if at / speed >= due and text:
            yield due, text
            due, text = max(due + PICTURE_S, at / speed), ""
        text += written
    yield due + PICTURE_S, text
    yield due + PICTURE_S + LAST_S, ""


def cast_of(pieces: Sequence[Piece], typed: str) -> str:
    """Return the recording as asciicast version 2, after what a person types."""
    lines = [{"version": 2, "width": COLUMNS, "height": LINES}, [0.0, "o", f"$ {typed}\r\n"]]
    lines += [[round(at + 1, 3), "o", text] for at, text in sped_up(pieces)]
    return "".join(json.dumps(line) + "\n" for line in lines)


def main() -> None:
    """Record and draw."""
    command = sys.argv[1:] or shlex.split(COMMAND)
    pieces = record(command)
    cast = cast_of(pieces, shlex.join(command))
    with TemporaryDirectory() as folder:
        at = Path(folder) / "recording.cast"
        at.write_text(cast)
        subprocess.run([*DRAW, "--in", str(at), "--out", str(PICTURE)], check=True)
    print(f"{PICTURE}: {pieces[-1][0]:.0f} s, sped up {speed_of(pieces):.1f} times")


if __name__ == "__main__":
    main()
