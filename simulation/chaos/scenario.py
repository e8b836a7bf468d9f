"""What a scenario is, and what it is played on."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from simulation.chaos.federation import AskedStudy, Federation
from simulation.chaos.hospitals import NAMES, STUDY, Undisturbed, undisturbed

VICTIM = "north"


class SkippedError(Exception):
    """This machine does not let the scenario be played; the text says what it lacks."""


def must(holds: bool, what: str) -> None:
    """Raise AssertionError, with what does not hold, unless it holds."""
    if not holds:
        raise AssertionError(f"does not hold: {what}")


@dataclass
class Stage:
    """What scenarios share: the hospitals, and one federation that goes from one to the next."""

    made: Path
    """The hospitals."""
    folder: Path
    """Everything else is made below it."""
    draws: random.Random
    """Of the moments."""
    count: int = 0
    _shared: Federation | None = field(default=None, repr=False)
    _without_victim: bytes | None = field(default=None, repr=False)

    def study(self, *more: str) -> list[str]:
        """Return the settings of a study that was not asked for before."""
        self.count += 1
        return [*STUDY, f"name=chaos{self.count}", *more]

    def expected(self, overrides: Sequence[str]) -> Undisturbed:
        """Return what a study comes to when nothing happens."""
        return undisturbed(self.made, self.folder / f"u{self.count}", overrides)

    def shared(self) -> Federation:
        """Return a federation that runs, each site behind a network that can be cut."""
        if self._shared is None:
            self._shared = self.fresh()
            self._shared.start_server()
            self._shared.start_sites()
        return self._shared

    def fresh(self) -> Federation:
        """Return a federation of which nothing runs yet; its user ends it."""
        self.count += 1
        federation = Federation(self.folder / f"f{self.count}", self.made, NAMES)
        federation.put_between(*NAMES)
        return federation

    def give_up_shared(self) -> None:
        """End the shared federation; the next scenario gets a new one."""
        if self._shared is not None:
            self._shared.__exit__(None, None, None)
            self._shared = None

    def same_without_victim(self, tensors: bytes) -> bool:
        """Whether these tensors are those of every study that lost the victim in round 2."""
        if self._without_victim is None:
            self._without_victim = tensors
        return self._without_victim == tensors


@dataclass(frozen=True)
class Scenario:
    """One thing that happens, and what must hold."""

    name: str
    done: str
    """What is done, in words."""
    play: Callable[[Stage], str]
    """Plays it and returns what held; raises AssertionError where it did not."""
    short: bool = False
    """Whether it is in the short form."""


def undisturbed_in_all(federation: Federation, study: AskedStudy, expected: Undisturbed) -> str:
    """Wait for the end and hold a study against the undisturbed one; return what held."""
    status = study.wait()
    must(status == "completed", f"status completed, not {status} ({study.reason})")
    must(study.model() == expected.model, "the bytes of the undisturbed model")
    for name, site in federation.sites.items():
        must(site.charges(study.digest) == expected.charges[name], f"the ledger of {name}")
    must(all(part == sorted(NAMES) for part in study.participants()), "all sites in all rounds")
    return "same bytes, each round charged once at each site, completed"


def missed_in(
    stage: Stage, federation: Federation, study: AskedStudy, number: int, reason: str
) -> str:
    """Hold a study in which the victim missed one round, without privacy, to the truth."""
    status = study.wait()
    must(status == "partial", f"status partial, not {status} ({study.reason})")
    must(reason in study.reason, f"the reason tells of {reason!r}: {study.reason}")
    others = sorted(set(NAMES) - {VICTIM})
    rounds = [others if at == number else sorted(NAMES) for at in (1, 2, 3)]
    must(study.participants() == rounds, f"participants {study.participants()}")
    for name, site in federation.sites.items():
        charged = len(site.charges(study.digest))
        fewest = 2 if name == VICTIM else 3
        must(fewest <= charged <= 3, f"{charged} charges at {name}")
    text = f"partial, round {number} without {VICTIM} and why; nothing uncharged left"
    if number == 2:
        must(stage.same_without_victim(study.tensors()), "the bytes of every study without it")
        text += "; the same bytes whatever the reason"
    return text
