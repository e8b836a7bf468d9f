"""A site's rows and images, read again only where a file or a row has changed."""

import hashlib
import sys
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Generic, TypeVar

import psutil

from client.cohort import Cohort, load_cohort
from client.content import files_of
from client.manifest import Row, read_folder, read_manifest
from client.privacy.data_set import DataSet, data_set_of
from client.resident import composed
from common.seeding import seed

SHARE = 0.1
"""Of the memory that is free without them, which the cohorts of a process may take; the newest
always stays. Many processes that each play hospitals leave one another room so."""
Value = TypeVar("Value")


@dataclass(frozen=True)
class Listed:
    """The rows of a site."""

    rows: list[Row]
    stamp: str
    """Equal for equal rows and files: what a cache goes by."""


def rows_at(manifest: Path) -> list[Row]:
    """Return the rows of a manifest, or of a folder in one of the two layouts."""
    return read_folder(manifest) if manifest.is_dir() else read_manifest(manifest)


def listed_at(manifest: Path) -> Listed:
    """Return the rows of a manifest or folder as they and their files are now."""
    rows = rows_at(manifest)
    return Listed(rows, _stamp(rows))


def cohort_of(manifest: Path, overrides: tuple[str, ...]) -> Cohort:
    """Return the site's data as the study of the overrides takes it."""
    return read_cohort(listed_at(manifest), overrides)


def read_cohort(listed: Listed, overrides: tuple[str, ...]) -> Cohort:
    """Return the data of the rows as the study of the overrides takes it.

    Raises:
        BadCohortError: as load_cohort.
    """
    study = composed(overrides)
    return _COHORTS.of(
        (listed.stamp, overrides),
        lambda: load_cohort(listed.rows, study.data, study.task, seed(study.seed, "split")),
    )


def read_data_set(listed: Listed) -> DataSet:
    """Return what the ledger knows the rows' data by; every file is read for it."""
    return _DATA_SETS.of((listed.stamp,), lambda: data_set_of(listed.rows))


class _Newest(Generic[Value]):
    """What was asked for last, as much as SHARE of the memory holds."""

    def __init__(self, bytes_of: Callable[[Value], int]) -> None:
        self._bytes_of = bytes_of
        self._kept: OrderedDict[Hashable, Value] = OrderedDict()
        self._bytes = 0
        self._lock = Lock()

    def of(self, key: Hashable, make: Callable[[], Value]) -> Value:
        with self._lock:
            if key not in self._kept:
                self._kept[key] = made = make()
                self._bytes += self._bytes_of(made)
                self._make_room()
            self._kept.move_to_end(key)
            return self._kept[key]

    def _make_room(self) -> None:
        most = SHARE * (psutil.virtual_memory().available + self._bytes)
        while self._bytes > most and len(self._kept) > 1:
            _, oldest = self._kept.popitem(last=False)
            self._bytes -= self._bytes_of(oldest)


_COHORTS = _Newest[Cohort](lambda cohort: cohort.bytes)
_DATA_SETS = _Newest[DataSet](lambda data_set: sum(map(sys.getsizeof, data_set.patients)))


def _stamp(rows: Sequence[Row]) -> str:
    known = hashlib.sha256()
    for row in rows:
        known.update(repr(row).encode())
        for file in (file for path in row.files for file in files_of(path)):
            if file.exists():
                about = file.stat()
                known.update(f"{about.st_mtime_ns} {about.st_size}".encode())
    return known.hexdigest()
