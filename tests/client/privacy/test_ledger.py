import multiprocessing
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from client.privacy.ledger import Ledger, LedgerError, ledgers_in
from client.privacy.ledger_store import create, head_path, lock_path
from common.accounting import PrivateSteps, epsilon_of
from tests.client.privacy.ledgers import STEPS, charged, data_set, values

NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = NOON

    def __call__(self) -> datetime:
        return self.now


def test_the_ledger_is_imported_without_torch_and_opacus() -> None:
    code = "import sys, client.privacy.ledger as _; print({'torch', 'opacus'} & set(sys.modules))"
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "set()\n"


def test_charges_add_up_over_openings(tmp_path: Path) -> None:
    charged(tmp_path, 3)
    ledger = Ledger.open(tmp_path, data_set())
    assert ledger.history() == [STEPS] * 3
    assert ledger.steps() == 15
    assert ledger.steps("study-0") == 10
    assert ledger.history("study-1") == [STEPS]
    assert ledger.epsilon(1e-3) == pytest.approx(epsilon_of([STEPS] * 3, 1e-3))
    assert 0 < ledger.epsilon(1e-3, "study-1") < ledger.epsilon(1e-3)
    assert ledger.epsilon(1e-3, "another") == 0


def test_a_release_is_charged_once(tmp_path: Path) -> None:
    ledger = charged(tmp_path, 1)
    ledger.charge("release-0", "study-0", STEPS, "training")
    assert ledger.steps() == STEPS.steps


def test_a_release_of_another_cost_is_refused(tmp_path: Path) -> None:
    ledger = charged(tmp_path, 1)
    cheaper = PrivateSteps(noise_multiplier=2.0, sample_rate=0.1, steps=5)
    with pytest.raises(LedgerError, match="must differ in its key"):
        ledger.charge("release-0", "study-0", cheaper, "training")


@pytest.mark.parametrize(
    ("steps", "purpose", "told"),
    [
        ((float("nan"), 0.1, 5), "training", "noise_multiplier=nan"),
        ((float("inf"), 0.1, 5), "training", "noise_multiplier=inf"),
        ((-1.0, 0.1, 5), "training", "noise_multiplier=-1.0"),
        ((1.0, float("nan"), 5), "training", "sample_rate=nan"),
        ((1.0, 1.1, 5), "training", "sample_rate=1.1"),
        ((1.0, 0.1, 0), "training", "steps=0"),
        ((1.0, 0.1, 2.5), "training", "float"),
        ((1.0, 0.1, 5), "curiosity", "purpose='curiosity'"),
    ],
)
def test_what_is_no_cost_is_refused(
    tmp_path: Path, steps: tuple[float, float, int], purpose: str, told: str
) -> None:
    ledger = charged(tmp_path, 1)
    # PrivateSteps refuses most of these too, but a ledger outlives the code that fills it.
    cost = SimpleNamespace(noise_multiplier=steps[0], sample_rate=steps[1], steps=steps[2])
    with pytest.raises(LedgerError, match=told):
        ledger.charge("new", "study", cast(PrivateSteps, cost), purpose)
    assert ledger.steps() == STEPS.steps


def test_an_added_patient_and_a_renamed_folder_go_on_with_the_ledger(tmp_path: Path) -> None:
    path = charged(tmp_path, 2).path
    grown = Ledger.open(tmp_path, data_set("b", ("p2", "p3")))
    assert grown.path == path
    assert grown.steps() == 10
    chain = grown.chain()
    assert [row.kind for row in chain.rows] == ["genesis", "charge", "charge", "data"]
    assert chain.fingerprint == data_set("b").fingerprint
    assert len(chain.patients) == 4
    # The patient who came later finds the ledger too.
    again = Ledger.open(tmp_path, data_set("c", ("p3",)))
    assert again.path == path
    assert (again.chain().newest.fields()["patients"], len(ledgers_in(tmp_path))) == (4, 1)


def test_an_unchanged_data_set_writes_no_row(tmp_path: Path) -> None:
    before = values(charged(tmp_path, 1).path)
    assert values(Ledger.open(tmp_path, data_set()).path) == before


def test_another_data_set_has_another_ledger(tmp_path: Path) -> None:
    ledger = charged(tmp_path, 1)
    other = Ledger.open(tmp_path, data_set("b", ("q0",)))
    assert other.path != ledger.path
    assert other.history() == []


def test_two_ledgers_of_one_data_set_are_refused_by_name(tmp_path: Path) -> None:
    one = charged(tmp_path, 1)
    two = Ledger.open(tmp_path, data_set("b", ("q0",)))
    with pytest.raises(LedgerError, match="out of the manifest") as caught:
        Ledger.open(tmp_path, data_set("c", ("p0", "q0")))
    assert str(one.path) in str(caught.value)
    assert str(two.path) in str(caught.value)


def test_no_file_holds_a_patient_in_clear(tmp_path: Path) -> None:
    Ledger.open(tmp_path, data_set("a", ("Ada Lovelace", "p1")))
    Ledger.open(tmp_path, data_set("b", ("Ada Lovelace", "Alan Turing")))
    content = b"".join(file.read_bytes() for file in tmp_path.iterdir())
    assert b"Lovelace" not in content
    assert b"Turing" not in content


def test_files_are_their_owners_alone(tmp_path: Path) -> None:
    folder = tmp_path / "state" / "ledgers"
    charged(folder, 1)
    assert {file.stat().st_mode & 0o777 for file in folder.iterdir()} == {0o600}
    assert folder.stat().st_mode & 0o777 == 0o700


def test_a_charge_whose_head_is_behind_is_anchored_before_it_may_leave(tmp_path: Path) -> None:
    ledger = charged(tmp_path, 1)
    head = head_path(ledger.path)
    before = head.read_bytes()
    ledger.charge("late", "study-0", STEPS, "training")
    after = head.read_bytes()
    head.write_bytes(before)  # as a kill between the row and its head leaves it
    ledger.charge("late", "study-0", STEPS, "training")
    assert head.read_bytes() == after


def test_a_ledger_that_is_gone_is_not_begun_anew(tmp_path: Path) -> None:
    charged(tmp_path, 1).path.unlink()
    with pytest.raises(LedgerError, match="its head is there"):
        Ledger.open(tmp_path, data_set())


def test_a_ledger_that_was_never_finished_is_begun_anew(tmp_path: Path) -> None:
    whole = Ledger.open(tmp_path / "whole", data_set())
    half = tmp_path / "half"
    half.mkdir()
    path = half / whole.path.name
    create(path, whole.chain().newest)
    path.unlink()
    head_path(path).write_text('{"seq": 0, "hash": ""}')
    (half / f".{path.name}.tmp").write_bytes(b"half")
    (half / f".{path.name}.tmp-wal").write_bytes(b"half")
    assert Ledger.open(half, data_set()).history() == []


def test_a_broken_ledger_refuses_every_data_set_of_the_site(tmp_path: Path) -> None:
    charged(tmp_path, 1).path.write_bytes(b"not a database")
    with pytest.raises(LedgerError, match=r"not a ledger .*restored together"):
        Ledger.open(tmp_path, data_set("b", ("q0",)))


def test_a_clock_set_back_is_refused_before_anything(tmp_path: Path) -> None:
    clock = Clock()
    ledger = Ledger.open(tmp_path, data_set(), clock)
    clock.now = NOON - timedelta(seconds=61)
    with pytest.raises(LedgerError, match=r"11:58:59 UTC.*12:00:00 UTC; set this machine's clock"):
        Ledger.open(tmp_path, data_set(), clock)
    with pytest.raises(LedgerError, match="clock"), ledger.exclusive():
        pytest.fail("training began")
    with pytest.raises(LedgerError, match="clock"):
        ledger.charge("r", "s", STEPS, "training")
    assert len(ledger.chain().rows) == 1


def test_a_clock_that_is_a_little_behind_writes_the_newest_time(tmp_path: Path) -> None:
    clock = Clock()
    ledger = Ledger.open(tmp_path, data_set(), clock)
    clock.now = NOON - timedelta(seconds=60)
    ledger.charge("r", "s", STEPS, "training")
    assert [row.time for row in ledger.chain().rows] == ["2026-01-02T12:00:00.000000+00:00"] * 2


def _try_to_hold(folder: Path, told: "multiprocessing.Queue[str]") -> None:
    try:
        with Ledger.open(folder, data_set()).exclusive():
            told.put("held")
    except LedgerError as error:
        told.put(str(error))


def test_the_holder_reads_what_is_there_again_after_each_charge(tmp_path: Path) -> None:
    ledger = charged(tmp_path, 1)
    with ledger.exclusive():
        before = ledger.chain()
        assert ledger.chain() is before
        ledger.charge("mine", "study-0", STEPS, "training")
        assert ledger.chain() == Ledger(ledger.path).chain()
        assert len(ledger.chain().rows) == len(before.rows) + 1
        after = ledger.chain()
        ledger.charge("mine", "study-0", STEPS, "training")
        assert ledger.chain() is not after
    # Nobody holds it: what another has written since is seen.
    Ledger(ledger.path).charge("theirs", "study-0", STEPS, "training")
    assert "theirs" in ledger.chain().charges
    with ledger.exclusive():
        assert "theirs" in ledger.chain().charges


def test_a_second_trainer_is_refused_at_once(tmp_path: Path) -> None:
    ledger = charged(tmp_path, 1)
    context = multiprocessing.get_context("fork")
    told: multiprocessing.Queue[str] = context.Queue()
    other = context.Process(target=_try_to_hold, args=(tmp_path, told))
    with ledger.exclusive():
        ledger.charge("mine", "study-0", STEPS, "training")
        other.start()
        answer = told.get(timeout=20)
        other.join()
        # Another ledger object of this process is another trainer too.
        with pytest.raises(LedgerError, match="another trainer"):
            Ledger(ledger.path).charge("theirs", "study-0", STEPS, "training")
    assert str(lock_path(ledger.path)) in answer
    assert "another trainer works with this data set" in answer
    _try_to_hold(tmp_path, told)
    assert told.get(timeout=20) == "held"


FULL_DISK = """
import resource, signal, sys
from pathlib import Path
from types import SimpleNamespace
from client.privacy.ledger import Ledger, LedgerError
ledger, limit_bytes, release = Ledger(Path(sys.argv[1])), int(sys.argv[2]), "r" * int(sys.argv[3])
cost = SimpleNamespace(noise_multiplier=1.0, sample_rate=0.1, steps=5)
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
with ledger.exclusive():
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, resource.RLIM_INFINITY))
    try:
        ledger.charge(release, "study-0", cost, "training")
        print("charged")
    except LedgerError as error:
        print(error)
    try:
        Ledger(ledger.path).chain()
        print("read")
    except LedgerError as error:
        print(error)
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    print(len(ledger.chain().rows))
    ledger.charge(release, "study-0", cost, "training")
"""


@pytest.mark.parametrize(
    ("limit_bytes", "key_letters", "told"),
    [
        (0, 10, "cannot be read now"),
        (20_000, 10, "cannot be read now"),
        (33_000, 50_000, "read"),
        (50_000, 50_000, "read"),
    ],
)
def test_a_full_disk_is_told_and_the_ledger_goes_on_afterwards(
    tmp_path: Path, limit_bytes: int, key_letters: int, told: str
) -> None:
    ledger = charged(tmp_path, 3)
    numbers = [str(ledger.path), str(limit_bytes), str(key_letters)]
    out = subprocess.check_output([sys.executable, "-c", FULL_DISK, *numbers], text=True)
    error, read, rows = out.splitlines()
    assert "cannot be written" in error
    assert "free space" in error
    assert told in read
    assert rows == "4"
    assert ledger.steps() == 4 * STEPS.steps


def test_a_commit_that_fitted_counts_though_the_disk_is_full_after_it(tmp_path: Path) -> None:
    ledger = charged(tmp_path, 1)
    ledger.charge("x" * 60_000, "study-0", STEPS, "training")
    numbers = [str(ledger.path), "40000", "10"]
    out = subprocess.check_output([sys.executable, "-c", FULL_DISK, *numbers], text=True)
    assert out.splitlines() == ["charged", "read", "4"]
    assert ledger.steps() == 3 * STEPS.steps
