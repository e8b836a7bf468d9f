"""The verbs receive and fetch of wardround-site: images from a PACS into the site's cohort.

wardround-site receive --from PACS --host 10.1.2.3            take what the PACS sends
wardround-site fetch --pacs PACS@10.1.2.9:104 --modality MR   ask for it
"""

import os
import re
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from client.cli_intake import (
    DEFAULT_SITE,
    SOME_REFUSED,
    MappingOption,
    SiteOption,
    check_installed,
    tell_refused,
)
from client.cli_intake import watched as with_bar
from client.enrolment import state_folder
from common.supervision import OWNER_ALONE

if TYPE_CHECKING:
    from pydicom import Dataset

    from client.pacs import Receiver

LOG_WIDTH = 120
TITLE, PORT, HOST = "WARDROUND", 11112, "127.0.0.1"
_PEER = re.compile(r"(?P<title>[^@\s]{1,16})@(?P<host>[^@:\s]+):(?P<port>\d{1,5})")

HostOption = Annotated[str, typer.Option("--host", help="This machine's address to listen on.")]
PortOption = Annotated[int, typer.Option("--port", min=1, max=65535, help="The port to listen on.")]
TitleOption = Annotated[str, typer.Option("--title", help="The AE title of this site.")]


def mount(app: typer.Typer) -> None:
    """Give the verbs to the command of a hospital."""
    app.command("receive")(receive)
    app.command("fetch")(fetch)


def receive(
    callers: Annotated[list[str], typer.Option("--from", help="An AE title that may send.")],
    site: SiteOption = DEFAULT_SITE,
    mapping: MappingOption = None,
    host: HostOption = HOST,
    port: PortOption = PORT,
    title: TitleOption = TITLE,
) -> None:
    """De-identify what a PACS sends into the site's cohort, until ctrl-c or SIGTERM."""
    check_installed()
    stop = Event()
    for end in (signal.SIGTERM, signal.SIGINT):
        signal.signal(end, lambda *_: stop.set())
    with _listening(site, mapping, host, port, title, callers) as receiver:
        _say(f"{title} listens on {host}:{port} for {', '.join(callers)}")
        stop.wait()
    _tell(receiver)


def fetch(
    pacs: Annotated[str, typer.Option("--pacs", metavar="TITLE@HOST:PORT", help="The PACS.")],
    patients: Annotated[
        Path | None, typer.Option("--patients", help="A file with one PatientID a line.")
    ] = None,
    dates: Annotated[str, typer.Option(help="Of the study: 20260131, or 20260101-20260331.")] = "",
    modality: Annotated[str, typer.Option(help="Such as CT or MR.")] = "",
    description: Annotated[str, typer.Option(help="Of the series; * stands for anything.")] = "",
    site: SiteOption = DEFAULT_SITE,
    mapping: MappingOption = None,
    host: HostOption = HOST,
    port: PortOption = PORT,
    title: TitleOption = TITLE,
) -> None:
    """Ask a PACS for series (C-FIND, C-MOVE); exit code 3 if it did not send all of them."""
    check_installed()
    # The library of DICOM's network, which the other verbs do without.
    from client.pacs import Peer, Wanted
    from client.pacs import fetch as fetched

    parts = _PEER.fullmatch(pacs)
    if parts is None:
        raise ValueError(f"--pacs {pacs} is no address of a PACS; give TITLE@HOST:PORT")
    peer = Peer(host=parts["host"], port=int(parts["port"]), title=parts["title"])
    wanted = Wanted(
        patients=_lines(patients), dates=dates, modality=modality, description=description
    )
    if wanted == Wanted():
        raise ValueError("say what to fetch: --patients, --dates, --modality or --description")
    with _listening(site, mapping, host, port, title, [peer.title]) as receiver:
        series, failed = fetched(peer, wanted, title, each=_with_bar)
    _tell(receiver)
    _say(f"{series} series found, {failed} of them not sent whole")
    if failed or receiver.refused:
        raise typer.Exit(SOME_REFUSED)


@contextmanager
def _listening(
    site: Path, mapping: Path | None, host: str, port: int, title: str, callers: Sequence[str]
) -> "Iterator[Receiver]":
    from client.intake import store_of
    from client.mapping import Names, load_names
    from client.pacs import Receiver, listening

    os.umask(OWNER_ALONE)
    names = load_names(mapping) if mapping else Names()
    receiver = Receiver(store=store_of(state_folder(site), names))
    with listening(receiver, host, port, title, callers):
        yield receiver


def _with_bar(series: "Sequence[Dataset]") -> "Iterator[Dataset]":
    return iter(with_bar(series))


def _lines(path: Path | None) -> tuple[str, ...]:
    if path is None:
        return ()
    lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines()]
    found = tuple(line for line in lines if line)
    if not found:
        raise ValueError(f"{path} names no patient; give one PatientID a line")
    return found


def _tell(receiver: "Receiver") -> None:
    store = receiver.store
    tell_refused(Console(width=LOG_WIDTH), receiver.refused)
    _say(
        f"{store.kept} images de-identified into {store.folder}, {store.known} were there already, "
        f"{len(receiver.refused)} refused"
    )


def _say(text: str) -> None:
    Console(width=LOG_WIDTH).print(text, highlight=False, markup=False, soft_wrap=True)
