"""The ledger of privacy: what a data set's patients have spent, written before anything leaves.

One file a data set, for its whole life: over kills, restarts, studies and servers. It is found by
its patients, so that a renamed folder or an added patient never begins a new account, and epsilon
never goes down. Every read checks the whole chain of rows (ledger_rows) and its head
(ledger_store). Imported without torch or Opacus.
"""

import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import get_ident
from typing import TYPE_CHECKING, Self

from client.privacy.data_set import DataSet
from client.privacy.ledger_rows import (
    CHARGE,
    DATA,
    GENESIS,
    PURPOSES,
    Chain,
    Charge,
    LedgerBusyError,
    LedgerError,
    Row,
    next_row,
    patient_hash,
)
from client.privacy.ledger_store import (
    NAME_DIGITS,
    SUFFIX,
    Head,
    append,
    create,
    ledger_path,
    lock_path,
    locked,
    read,
    read_head,
    write_head,
)
from common.secret_files import sync_folder

if TYPE_CHECKING:
    from common.accounting import Epsilon, PrivateSteps

__all__ = [
    "PURPOSES",
    "Chain",
    "Charge",
    "Ledger",
    "LedgerBusyError",
    "LedgerError",
    "Row",
    "ledgers_in",
]

SALT_BYTES = 32
CLOCK_TOLERANCE = timedelta(seconds=60)
"""How far the clock may be set back between two rows, as time servers do."""


def utc_now() -> datetime:
    """Return the machine's time."""
    return datetime.now(UTC)


class Ledger:
    """The account of one data set.

    Guarantees: a charge is on the disk, and its head too, before `charge` returns; a release is
    charged once; a row that was changed, removed or moved is found by every method that reads;
    a kill at any instruction leaves a whole ledger with every charge whose update left. Who holds
    it (`exclusive`) reads it once, and again after each charge: nobody else writes meanwhile.
    It does not find a ledger that was put back whole, with its head, from an older copy: a signed
    export (ledger_export) does.
    """

    def __init__(self, path: Path, clock: Callable[[], datetime] = utc_now) -> None:
        """Take a file, for reading; to train, use `open`."""
        self.path = path
        self._clock = clock
        self._owner: int | None = None
        self._held: Chain | None = None
        """The rows as the owner read them, until the next charge."""

    @classmethod
    def open(cls, folder: Path, data_set: DataSet, clock: Callable[[], datetime] = utc_now) -> Self:
        """Return the data set's ledger, found by its patients; made if there is none.

        folder: of all ledgers of the site.

        Raises:
            LedgerError: a ledger of the folder is broken or lost, two share patients with the data
                set, the clock was set back, the disk is full, or the data set has changed while
                another trainer works with it.
        """
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            sync_folder(folder.parent)
        except OSError as error:
            raise LedgerError(
                f"{folder}: the folder of ledgers cannot be made ({error}); correct the site's "
                "state folder, or its rights"
            ) from error
        with locked(folder / "ledgers.lock", wait=True):
            found = _found(folder, data_set)
            if found is None:
                path = ledger_path(folder, data_set.fingerprint)
                with locked(lock_path(path), wait=False):
                    create(path, _genesis(data_set, clock()))
                found = path, read(path)
            path, chain = found
            ledger = cls(path, clock)
            ledger._notice(data_set, chain)
        return ledger

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Keep every other trainer from this data set, from before training until after `charge`.

        Raises:
            LedgerError: another trainer has it, or the clock was set back.
        """
        with locked(lock_path(self.path), wait=False):
            chain = self.chain()
            self._time(chain)
            self._owner, self._held = get_ident(), chain
            try:
                yield
            finally:
                self._owner = self._held = None

    def charge(self, release: str, study: str, steps: "PrivateSteps", purpose: str) -> None:
        """Write down what a release costs, unless it is written already; on the disk on return.

        release: key of what leaves; the same key is the same bytes.
        study: digest of the study.
        purpose: training, evaluation, statistics or profile.

        Raises:
            LedgerError: the cost is not one, the release was charged with another cost, the disk
                is full, the clock was set back, another trainer works with the data, or the ledger
                is broken.
        """
        try:
            cost = Charge(
                release=release,
                study=study,
                purpose=purpose,
                noise_multiplier=float(steps.noise_multiplier),
                sample_rate=float(steps.sample_rate),
                steps=steps.steps,
            )
        except (ValueError, TypeError) as error:
            raise LedgerError(f"{self.path}: cannot be charged so: {error}") from error
        if self._owner == get_ident():
            self._charge(cost)
        else:
            with self.exclusive():
                self._charge(cost)

    def chain(self) -> Chain:
        """Return all rows, checked.

        Raises:
            LedgerError: the ledger is broken, cut, of another data set, or cannot be read.
        """
        if self._owner != get_ident():
            return read(self.path)
        if self._held is None:
            self._held = read(self.path)
        return self._held

    def history(self, study: str | None = None) -> list["PrivateSteps"]:
        """Return the charged steps, oldest first; of one study or of all."""
        return steps_of(self._charges(study))

    def epsilon(self, delta: float, study: str | None = None) -> float:
        """Return the epsilon spent so far at delta; of one study or of all."""
        return epsilon_of_charges(self._charges(study), delta)

    def steps(self, study: str | None = None) -> int:
        """Return the number of private steps taken; of one study or of all."""
        return sum(charge.steps for charge in self._charges(study))

    def _charges(self, study: str | None) -> list[Charge]:
        charges = self.chain().charges.values()
        return [charge for charge in charges if study in (None, charge.study)]

    def _charge(self, cost: Charge) -> None:
        chain = self.chain()
        time = self._time(chain)
        known = chain.charges.get(cost.release)
        self._held = None
        if known is None:
            append(self.path, next_row(chain.newest, time, CHARGE, asdict(cost)))
        elif known != cost:
            raise LedgerError(
                f"{self.path}: release {cost.release} was charged as {known}, now as {cost}; "
                "what differs in its cost must differ in its key"
            )
        elif read_head(self.path).seq < chain.newest.seq:
            # A kill came between the row and its head, and nothing has left yet.
            write_head(self.path, Head(chain.newest.seq, chain.newest.hash))

    def _notice(self, data_set: DataSet, chain: Chain) -> None:
        """Write down that the data set has grown or changed. chain: as it was just read."""
        self._time(chain)
        if chain.fingerprint == data_set.fingerprint:
            return
        with self.exclusive():
            chain = self.chain()
            new = sorted(chain.hashes_of(data_set.patients) - chain.patients)
            about = {
                "fingerprint": data_set.fingerprint,
                "new_patients": len(new),
                "patients": len(chain.patients) + len(new),
            }
            time = self._time(chain)
            append(self.path, next_row(chain.newest, time, DATA, about, {"patients": new}))

    def _time(self, chain: Chain) -> datetime:
        """Return the time of the next row: never before the newest."""
        now, newest = self._clock(), chain.newest_time
        if now < newest - CLOCK_TOLERANCE:
            raise LedgerError(
                f"{self.path}: the clock says {now:%Y-%m-%d %H:%M:%S} UTC, but the newest row is "
                f"of {newest:%Y-%m-%d %H:%M:%S} UTC; set this machine's clock"
            )
        return max(now, newest)


def ledgers_in(folder: Path) -> list[Ledger]:
    """Return the ledgers of a folder, by name; they are not read yet.

    Raises:
        LedgerError: a head is there whose ledger is gone.
    """
    for head in sorted(folder.glob(f"*{SUFFIX}.head")):
        path = head.with_suffix("")
        # A head of row 0 is of a ledger that was never finished.
        if not path.exists() and read_head(path).seq:
            raise LedgerError(
                f"{path}: the ledger is gone, but its head is there; restore it from a backup, "
                "or what its patients have spent is forgotten"
            )
    return [Ledger(path) for path in sorted(folder.glob(f"*{SUFFIX}"))]


def steps_of(charges: list[Charge]) -> list["PrivateSteps"]:
    """Return charges as the accountant takes them."""
    from common.accounting import PrivateSteps

    return [
        PrivateSteps(noise_multiplier=c.noise_multiplier, sample_rate=c.sample_rate, steps=c.steps)
        for c in charges
    ]


def epsilon_of_charges(charges: list[Charge], delta: float) -> float:
    """Return the epsilon of charges together, at delta: the tighter bound."""
    return epsilons_of_charges(charges, delta).value


def epsilons_of_charges(charges: list[Charge], delta: float) -> "Epsilon":
    """Return every bound on the epsilon of charges together, at delta."""
    from common.accounting import epsilons_of

    return epsilons_of(steps_of(charges), delta)


def _genesis(data_set: DataSet, time: datetime) -> Row:
    salt = secrets.token_hex(SALT_BYTES)
    patients = sorted(patient_hash(salt, patient) for patient in data_set.patients)
    about = {"fingerprint": data_set.fingerprint, "patients": len(patients)}
    return next_row(None, time, GENESIS, about, {"patients": patients, "salt": salt})


def _found(folder: Path, data_set: DataSet) -> tuple[Path, Chain] | None:
    """Return the ledger that shares a patient with the data set, and its rows."""
    sharing = []
    for ledger in ledgers_in(folder):
        chain = ledger.chain()
        if chain.patients & chain.hashes_of(data_set.patients):
            sharing.append((ledger.path, chain))
    if len(sharing) > 1:
        names = " and ".join(str(path) for path, _ in sharing)
        raise LedgerError(
            f"{names} each hold patients of data set {data_set.fingerprint[:NAME_DIGITS]}, and "
            "what they spent cannot be added up for one model; take the patients of all but one "
            "ledger out of the manifest"
        )
    return sharing[0] if sharing else None
