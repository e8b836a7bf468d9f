"""A site and its PACS, which is another process: dcmtk's where it is installed."""

import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from client.cli import app
from client.cli_intake import SOME_REFUSED
from client.intake import store_of
from client.mapping import Names
from client.pacs import PacsError, Peer, Receiver, Wanted, fetch, listening
from client.preflight.report import preflight
from simulation.chaos.waiting import free_port, until
from tests.dicoms import header, stored_volume, with_pixels, write_series

HOST = "127.0.0.1"
PYNETDICOM = (sys.executable, "-m", "pynetdicom", "storescu")


def needs(program: str) -> str:
    # pynetdicom puts programs of the same names beside this Python.
    own = Path(sys.executable).parent
    folders = [one for one in os.get_exec_path() if Path(one) != own]
    found = shutil.which(program, path=os.pathsep.join(folders))
    if found is None:
        pytest.skip(f"{program} is not installed; apt-get install dcmtk")
    return found


def wait_for(port: int) -> None:
    def answers() -> bool:
        with socket.socket() as one:
            return one.connect_ex((HOST, port)) == 0

    until(f"somebody listens on {port}", answers, deadline_s=30)


def send(files: list[Path], port: int, sender: str, title: str = "PACS") -> int:
    if sender == "dcmtk":
        program = [needs("storescu"), "-aet", title, "-aec", "WARDROUND", HOST, str(port)]
        words = [*program, *map(str, files)]
        return subprocess.run(words, capture_output=True, timeout=60).returncode
    codes = [
        subprocess.run(
            [*PYNETDICOM, HOST, str(port), str(file), "-aet", title, "-aec", "WARDROUND"],
            capture_output=True,
            timeout=60,
        ).returncode
        for file in files
    ]
    return max(codes)


@pytest.fixture
def receiver(tmp_path: Path) -> Receiver:
    return Receiver(store=store_of(tmp_path / "state", Names()))


@pytest.mark.parametrize("sender", ["dcmtk", "pynetdicom"])
def test_what_is_sent_lies_de_identified_in_the_cohort(
    tmp_path: Path, receiver: Receiver, sender: str
) -> None:
    files = write_series(tmp_path / "in", stored_volume(3))
    with listening(receiver, HOST, 0, "WARDROUND", ["PACS"]) as port:
        assert send(files, port, sender) == 0
    assert (receiver.store.kept, receiver.refused) == (3, [])
    report = preflight(tmp_path / "state" / "cohort")
    assert (report.images, report.sizes) == (1, {"6 x 5 x 3": 1})
    content = b"".join(f.read_bytes() for f in (tmp_path / "state").rglob("*") if f.is_file())
    assert b"Doeringer" not in content
    assert b"MRN-4711" not in content
    assert (tmp_path / "state" / "deidentification.jsonl").is_file()


def test_an_image_that_is_refused_is_told_to_the_sender(tmp_path: Path, receiver: Receiver) -> None:
    found = with_pixels(
        header("1.2.840.10008.5.1.4.1.1.6.1", "US", BurnedInAnnotation="YES"),
        stored_volume()[0].astype("uint8"),
    )
    found.save_as(tmp_path / "us.dcm", enforce_file_format=True)
    with listening(receiver, HOST, 0, "WARDROUND", ["PACS"]) as port:
        send([tmp_path / "us.dcm"], port, "pynetdicom")
    (error,) = receiver.refused
    assert "text in its pixels" in error.reason
    assert not list((tmp_path / "state").rglob("*.dcm"))


def test_another_caller_is_not_let_in(tmp_path: Path, receiver: Receiver) -> None:
    files = write_series(tmp_path / "in", stored_volume(1))
    with listening(receiver, HOST, 0, "WARDROUND", ["PACS"]) as port:
        assert send(files, port, "pynetdicom", title="OTHER") != 0
    assert receiver.store.kept == 0


def test_a_port_that_is_taken_is_told(receiver: Receiver) -> None:
    with (
        listening(receiver, HOST, 0, "WARDROUND", ["PACS"]) as port,
        pytest.raises(PacsError, match="cannot listen"),
        listening(receiver, HOST, port, "WARDROUND", ["PACS"]),
    ):
        pass


def test_a_pacs_that_is_not_there_is_told() -> None:
    with pytest.raises(PacsError, match="cannot be reached"):
        fetch(Peer(host=HOST, port=free_port(), title="PACS"), Wanted(modality="CT"), "WARDROUND")


@pytest.fixture
def pacs(tmp_path: Path) -> Iterator[tuple[int, int]]:
    """A PACS of dcmtk with two patients; its port, and the one where it thinks that we listen."""
    program, ours, theirs = needs("dcmqrscp"), free_port(), free_port()
    (tmp_path / "db").mkdir()
    (tmp_path / "dcmqrscp.cfg").write_text(
        f"NetworkTCPPort = {theirs}\nMaxPDUSize = 16384\nMaxAssociations = 16\n"
        f"HostTable BEGIN\nward = (WARDROUND, {HOST}, {ours})\nHostTable END\n"
        "VendorTable BEGIN\nVendorTable END\n"
        f"AETable BEGIN\nPACS {tmp_path / 'db'} RW (200, 1024mb) ANY\nAETable END\n"
    )
    process = subprocess.Popen(
        [program, "-c", str(tmp_path / "dcmqrscp.cfg")],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_for(theirs)
        first = write_series(tmp_path / "a", stored_volume(3), SeriesDescription="thorax")
        second = write_series(tmp_path / "b", stored_volume(2), PatientID="MRN-4712")
        words = [needs("storescu"), "-aet", "CT1", "-aec", "PACS", HOST, str(theirs)]
        subprocess.run([*words, *map(str, [*first, *second])], check=True, timeout=60)
        yield theirs, ours
    finally:
        process.terminate()
        process.wait(timeout=30)


def fetched(tmp_path: Path, pacs: tuple[int, int], *wanted: str) -> int:
    (tmp_path / "site.yaml").write_text("name: st-a\nmanifest: state/cohort/manifest.csv\n")
    words = ["fetch", "--pacs", f"PACS@{HOST}:{pacs[0]}", "--port", str(pacs[1]), *wanted]
    return app([*words, "--site", str(tmp_path / "site.yaml")], standalone_mode=False) or 0


def test_the_patients_of_a_list_are_fetched_from_a_pacs(
    tmp_path: Path, pacs: tuple[int, int], capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "patients.txt").write_text("MRN-4712\n")
    assert fetched(tmp_path, pacs, "--patients", str(tmp_path / "patients.txt")) == 0
    assert "1 series found, 0 of them not sent whole" in capsys.readouterr().out
    report = preflight(tmp_path / "state" / "cohort")
    assert report.sizes == {"6 x 5 x 2": 1}
    assert fetched(tmp_path, pacs, "--modality", "CT") == 0
    assert preflight(tmp_path / "state" / "cohort").patients == 2
    assert fetched(tmp_path, pacs, "--modality", "MR") == 0
    assert "0 series found" in capsys.readouterr().out


def test_a_pacs_that_cannot_reach_us_is_told(
    tmp_path: Path, pacs: tuple[int, int], capsys: pytest.CaptureFixture[str]
) -> None:
    elsewhere = (pacs[0], free_port())
    assert fetched(tmp_path, elsewhere, "--modality", "CT") == SOME_REFUSED
    assert "2 series found, 2 of them not sent whole" in capsys.readouterr().out


def test_what_a_pacs_does_not_tell_is_not_fetched(tmp_path: Path, pacs: tuple[int, int]) -> None:
    """dcmtk's does not know descriptions of series, and answers as if any would do."""
    with pytest.raises(PacsError, match="does not tell the SeriesDescription"):
        fetched(tmp_path, pacs, "--description", "thorax")
    assert not list((tmp_path / "state").rglob("*.dcm"))


def test_receive_ends_with_sigterm_and_tells_what_came(tmp_path: Path) -> None:
    (tmp_path / "site.yaml").write_text("name: st-a\nmanifest: none\n")
    port = free_port()
    words = [
        "receive",
        "--from",
        "PACS",
        "--port",
        str(port),
        "--site",
        str(tmp_path / "site.yaml"),
    ]
    process = subprocess.Popen(
        [sys.executable, "-m", "client.cli", *words],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    try:
        wait_for(port)
        assert send(write_series(tmp_path / "in", stored_volume(1)), port, "pynetdicom") == 0
        process.send_signal(signal.SIGTERM)
        out, _ = process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode == 0
    assert "1 images de-identified" in out
