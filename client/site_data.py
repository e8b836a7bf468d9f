"""A site's rows and images, read again only where a file or a row has changed."""

import functools
import hashlib
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock

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
SITES = 4096
"""Whose fingerprints are kept."""


@dataclass(frozen=True)
class Listed:
    """The rows of a site, equal to others of equal rows and files: what a cache goes by."""

    rows: list[Row] = field(compare=False)
    stamp: str


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
    return _COHORTS.of(listed, overrides)


@functools.lru_cache(maxsize=SITES)
def read_data_set(listed: Listed) -> DataSet:
    """Return what the ledger knows the rows' data by; every file is read for it."""
    return data_set_of(listed.rows)


class _Cohorts:
    """The cohorts that were asked for last, as many as SHARE of the memory holds."""

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[Listed, tuple[str, ...]], Cohort] = OrderedDict()
        self._bytes = 0
        self._lock = Lock()

    def of(self, listed: Listed, overrides: tuple[str, ...]) -> Cohort:
        with self._lock:
            key = listed, overrides
            found = self._kept.get(key)
            if found is None:
                study = composed(overrides)
                found = load_cohort(listed.rows, study.data, study.task, seed(study.seed, "split"))
                self._kept[key] = found
                self._bytes += found.bytes
                self._make_room()
            self._kept.move_to_end(key)
            return found

    def _make_room(self) -> None:
        most = SHARE * (psutil.virtual_memory().available + self._bytes)
        while self._bytes > most and len(self._kept) > 1:
            _, oldest = self._kept.popitem(last=False)
            self._bytes -= oldest.bytes


_COHORTS = _Cohorts()


def _stamp(rows: Sequence[Row]) -> str:
    known = hashlib.sha256()
    for row in rows:
        known.update(repr(row).encode())
        for file in (file for path in row.files for file in files_of(path)):
            if file.exists():
                about = file.stat()
                known.update(f"{about.st_mtime_ns} {about.st_size}".encode())
    return known.hexdigest()
