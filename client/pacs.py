"""A site and its PACS: images that are sent (C-STORE), asked for (C-FIND) and fetched (C-MOVE).

DICOM PS3.4, annexes B and C. What comes is de-identified in memory before any of it is written. A
PACS that is told of an error hears a status and no text.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from threading import Lock
from typing import Any

from pydicom import Dataset, FileDataset
from pydicom.uid import UID, AllTransferSyntaxes
from pynetdicom import AE, AllStoragePresentationContexts, evt
from pynetdicom.association import Association

from client.deidentify.store import Store
from client.readers import BadFileError
from client.readers.dicom_files import refusing

_VERIFICATION = UID("1.2.840.10008.1.1")
_FIND = UID("1.2.840.10008.5.1.4.1.2.2.1")
_MOVE = UID("1.2.840.10008.5.1.4.1.2.2.2")
"""Of the study root (PS3.4, C.6.2)."""
_SUCCESS, _CANNOT_UNDERSTAND, _OUT_OF_RESOURCES = 0x0000, 0xC000, 0xA700
_PENDING = (0xFF00, 0xFF01)
_TIMEOUT_S = 60
_MOST_CALLERS = 10
_SENT = Path("an image that was sent")
"""What an error calls an image that has no file."""


class PacsError(ValueError):
    """A PACS that cannot be reached, or that refuses."""


@dataclass(frozen=True, kw_only=True)
class Peer:
    """A PACS on the hospital's network."""

    host: str
    port: int
    title: str
    """Its AE title."""


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """Which series are to be fetched; an empty value asks for any, * stands for anything."""

    patients: tuple[str, ...] = ()
    """PatientIDs."""
    dates: str = ""
    """StudyDate, or a range: 20260101-20260331."""
    modality: str = ""
    description: str = ""
    """Of the series."""


@dataclass(kw_only=True)
class Receiver:
    """What has come in since it began to listen."""

    store: Store
    refused: list[BadFileError] = field(default_factory=list)
    _lock: Lock = field(default_factory=Lock)

    def take(self, event: evt.Event) -> int:
        """Work off one C-STORE request; return its status."""
        # One after another: callers have threads of their own, and counts are shared.
        with self._lock:
            try:
                with refusing(_SENT):
                    self.store.add(_file_of(event), _SENT)
            except BadFileError as error:
                self.refused.append(error)
                full = isinstance(error.__cause__, OSError)
                return _OUT_OF_RESOURCES if full else _CANNOT_UNDERSTAND
        return _SUCCESS

    def note(self, _: evt.Event) -> None:
        """Write what was taken out, whenever a caller is done."""
        with self._lock:
            self.store.write_log()


@contextmanager
def listening(
    receiver: Receiver, host: str, port: int, title: str, callers: Sequence[str]
) -> Iterator[int]:
    """Listen for images on a port, 0 for a free one; give the port.

    callers: AE titles that may send; others are refused, and so is who calls us by another title.

    Raises:
        PacsError: the port is taken, or the address is not of this machine.
    """
    ae = AE(ae_title=title)
    for context in AllStoragePresentationContexts:
        ae.add_supported_context(str(context.abstract_syntax), AllTransferSyntaxes)
    ae.add_supported_context(_VERIFICATION)
    ae.require_called_aet, ae.require_calling_aet = True, list(callers)
    ae.maximum_associations = _MOST_CALLERS
    ae.network_timeout = ae.dimse_timeout = ae.acse_timeout = _TIMEOUT_S
    handlers: list[Any] = [
        (evt.EVT_C_STORE, receiver.take),
        (evt.EVT_CONN_CLOSE, receiver.note),
    ]
    try:
        server = ae.start_server((host, port), block=False, evt_handlers=handlers)
    except OSError as error:
        raise PacsError(
            f"cannot listen on {host}:{port} ({error}); give another --port or --host"
        ) from error
    assert server is not None
    try:
        yield int(server.server_address[1])
    finally:
        server.shutdown()
        receiver.store.write_log()


def fetch(
    peer: Peer,
    wanted: Wanted,
    title: str,
    each: Callable[[Sequence[Dataset]], Iterator[Dataset]] = iter,
) -> tuple[int, int]:
    """Ask a PACS for series and have it send them to `title`; return (series, failed series).

    The PACS must know under which address and port that title listens.

    Raises:
        PacsError: it cannot be reached, does not let us in, or breaks off.
    """
    with _called(peer, title) as association:
        studies = list(_studies(association, wanted))
        series = [one for study in studies for one in _series(association, study, wanted)]
        failed = sum(not _moved(association, one, title) for one in each(series))
    return len(series), failed


@contextmanager
def _called(peer: Peer, title: str) -> Iterator[Association]:
    ae = AE(ae_title=title)
    ae.add_requested_context(_FIND)
    ae.add_requested_context(_MOVE)
    ae.network_timeout = ae.dimse_timeout = ae.acse_timeout = _TIMEOUT_S
    association = ae.associate(peer.host, peer.port, ae_title=peer.title)
    if not association.is_established:
        why = "refuses" if association.is_rejected else "cannot be reached"
        raise PacsError(
            f"{peer.title} at {peer.host}:{peer.port} {why}; correct its address and title, and "
            f"have the PACS know {title}"
        )
    try:
        yield association
    finally:
        association.release()


def _studies(association: Association, wanted: Wanted) -> Iterator[Dataset]:
    for patient in wanted.patients or ("",):
        query = Dataset()
        query.QueryRetrieveLevel = "STUDY"
        query.PatientID, query.StudyDate, query.StudyInstanceUID = patient, wanted.dates, ""
        yield from _found(association, query)


def _series(association: Association, study: Dataset, wanted: Wanted) -> Iterator[Dataset]:
    query = Dataset()
    query.QueryRetrieveLevel = "SERIES"
    query.StudyInstanceUID, query.SeriesInstanceUID = study.StudyInstanceUID, ""
    query.Modality, query.SeriesDescription = wanted.modality, wanted.description
    for answer in _found(association, query):
        if _fits(answer, "Modality", wanted.modality) and _fits(
            answer, "SeriesDescription", wanted.description
        ):
            yield answer


def _fits(answer: Dataset, name: str, pattern: str) -> bool:
    """Return whether an answer is what was asked: a PACS need not match on all that it is asked.

    Raises:
        PacsError: it does not tell; fetching all would bring images that nobody asked for.
    """
    if not pattern:
        return True
    told = str(answer.get(name, "") or "")
    if not told and name not in answer:
        raise PacsError(f"the PACS does not tell the {name} of its series; ask without it")
    return fnmatchcase(told.lower(), pattern.lower())


def _found(association: Association, query: Dataset) -> list[Dataset]:
    """Return all answers before anything else is asked: an association has one talk at a time."""
    answers = []
    for status, answer in association.send_c_find(query, _FIND):
        if status.get("Status") in _PENDING and answer is not None:
            answers.append(answer)
        elif status.get("Status") != _SUCCESS:
            raise _broken_off("C-FIND", status)
    return answers


def _moved(association: Association, series: Dataset, title: str) -> bool:
    query = Dataset()
    query.QueryRetrieveLevel = "SERIES"
    query.StudyInstanceUID = series.StudyInstanceUID
    query.SeriesInstanceUID = series.SeriesInstanceUID
    last = Dataset()
    for last, _ in association.send_c_move(query, title, _MOVE):
        if "Status" not in last:
            raise _broken_off("C-MOVE", last)
    return bool(last.get("Status") == _SUCCESS)


def _broken_off(what: str, status: Dataset) -> PacsError:
    code = f"status {status.Status:#06x}" if "Status" in status else "no answer"
    return PacsError(f"the PACS broke {what} off ({code}); look into its log, and try again")


def _file_of(event: evt.Event) -> FileDataset:
    return FileDataset(
        "", event.dataset, file_meta=event.file_meta, preamble=b"\0" * 128, is_little_endian=True
    )
