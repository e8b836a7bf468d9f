"""A trainer that is killed at any instruction, and goes on.

Run as a program, this file is the trainer: it charges releases and sends them, and a parent forks
one that is killed after so many bytecode instructions, again and again.
"""

import functools
import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable
from hashlib import sha256
from pathlib import Path
from types import FrameType, SimpleNamespace
from typing import Any, cast

from client.privacy import ledger_store
from client.privacy.data_set import DataSet
from client.privacy.ledger import Ledger

Work = Callable[[], object]
SITES, KILLS_EACH, ALARMS_EACH = 20, 10, 4
"""A site is a folder of its own, where a trainer is killed so often before it may end: by
instruction, and then by an alarm, which also falls into SQLite and into system calls."""
COST = cast(Any, SimpleNamespace(noise_multiplier=1.0, sample_rate=0.1, steps=1))
EARLY, CALM_S = 4, 0.15
"""Releases of a trainer that is not killed, and about how long it takes; kills fall evenly over
its instructions, alarms over its time."""


def data_set(patients: int) -> DataSet:
    """Return a data set that grows."""
    names = frozenset(f"p{number}" for number in range(patients))
    return DataSet(fingerprint=sha256(repr(patients).encode()).hexdigest(), patients=names)


def left(folder: Path) -> list[str]:
    """Return the releases that left the site."""
    file = folder / "left"
    # A kill in the middle of a sending leaves a line without its end.
    return file.read_text().split("\n")[:-1] if file.exists() else []


def send(folder: Path, release: str) -> None:
    """Let a release leave."""
    with (folder / "left").open("ab") as file:
        file.write(release.encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())


def train(folder: Path, patients: int, until: int) -> None:
    """Charge and send the releases that have not left yet."""
    ledger = Ledger.open(folder / "ledgers", data_set(patients))
    with ledger.exclusive():
        for number in range(len(left(folder)), until):
            ledger.charge(f"r{number}", "study", COST, "training")
            send(folder, f"r{number}")


def counted(work: Work, near: bool, kill_at: int | None = None) -> int:
    """Run the work; return its bytecode instructions, or be killed at one of them.

    near: count only those that deal with files.
    """
    done = 0

    def at_instruction(frame: FrameType, event: str, _: object) -> object:
        nonlocal done
        if near and frame.f_code.co_filename not in (__file__, ledger_store.__file__):
            return None
        frame.f_trace_opcodes = True
        if event == "opcode":
            done += 1
            if done == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)
        return at_instruction

    sys.settrace(cast(Any, at_instruction))
    try:
        work()
    finally:
        sys.settrace(None)
    return done


def alarmed(work: Work, after_s: float) -> None:
    """Run the work, and be killed after a time."""
    signal.setitimer(signal.ITIMER_REAL, after_s)
    work()


def forked(work: Work) -> int:
    """Run the work in a process of its own; return the signal that killed it, or 0."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            work()
            code = 0
        finally:
            os._exit(code)
    status = os.waitpid(child, 0)[1]
    assert not os.WIFEXITED(status) or os.WEXITSTATUS(status) == 0, "the trainer failed"
    return os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0


def lawful(folder: Path) -> int:
    """Check that the ledger is whole and that all that left is charged; return its charges."""
    paths = list((folder / "ledgers").glob("*.ledger"))
    if not paths:
        assert not left(folder)
        return 0
    (path,) = paths
    charged = list(Ledger(path).chain().charges)
    assert charged[: len(left(folder))] == left(folder)
    assert len(charged) <= len(left(folder)) + 1, "more is charged than was trained"
    return len(charged)


def torment(site: Path, kills: Iterable[Callable[[Work], object]]) -> int:
    """Kill a trainer again and again, then let it end; return how often it was killed."""
    site.mkdir()
    killed = charges = 0
    for attempt, kill in enumerate(kills):
        work = functools.partial(train, site, patients=2 + attempt // 4, until=10_000)
        killed += forked(functools.partial(kill, work)) in (signal.SIGKILL, signal.SIGALRM)
        now = lawful(site)
        assert now >= charges, "epsilon fell"
        charges = now
    until = charges + 2
    assert forked(lambda: train(site, 9, until)) == 0
    assert left(site) == [f"r{number}" for number in range(until)]
    assert lawful(site) == until
    return killed


def main(folder: Path) -> None:
    """Torment all sites and print what was seen."""
    made = counted(lambda: Ledger.open(folder / "made", data_set(2)), near=True)
    length = {}
    for near in (False, True):
        calm = folder / f"calm-{near}"
        calm.mkdir()
        length[near] = counted(functools.partial(train, calm, 2, EARLY), near)
    draws = random.Random(0)
    killed = 0
    for number in range(SITES):
        # The first kill goes evenly through the making of a ledger, the others anywhere.
        places = [(True, 1 + made * number // SITES)]
        for attempt in range(1, KILLS_EACH):
            near = attempt % 2 == 0
            places.append((near, draws.randint(1, length[near])))
        kills = [functools.partial(counted, near=near, kill_at=at) for near, at in places]
        delays_s = [draws.uniform(1e-4, CALM_S) for _ in range(ALARMS_EACH)]
        alarms = [functools.partial(alarmed, after_s=delay_s) for delay_s in delays_s]
        killed += torment(folder / f"site-{number}", [*kills, *alarms])
    heavy = sorted({"torch", "opacus"} & set(sys.modules))
    print(json.dumps({"killed": killed, "instructions": length[False], "heavy": heavy}))


def test_every_release_that_left_is_charged_whenever_the_trainer_is_killed(tmp_path: Path) -> None:
    out = subprocess.check_output([sys.executable, __file__, str(tmp_path)], text=True)
    seen = json.loads(out)
    assert seen["killed"] == SITES * (KILLS_EACH + ALARMS_EACH)
    assert seen["instructions"] > 1000
    assert seen["heavy"] == []


if __name__ == "__main__":
    main(Path(sys.argv[1]))
