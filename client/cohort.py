"""A site's patients as tensors, split by patient, with every bad file found before training.

Shape suffixes: N samples, C channels.
"""

import functools
import hashlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from client.cases import Case, read_case
from client.content import digest_of
from client.manifest import Row, stated_sides
from client.readers import BadFileError
from client.row_images import Acquired, images_of
from common.data_config import DataConfig
from common.seeding import seed as seed_of
from common.state import digest_of as digest_of_arrays
from common.tasks.config import TaskConfig
from common.tasks.segmentation import SegmentationConfig

_TOLD = 10
"""Bad files that an error spells out."""


class BadCohortError(ValueError):
    """A site's files cannot be used: all that is wrong with them, in one error."""

    def __init__(self, message: str, bad_files: Sequence[BadFileError]) -> None:
        told = [f"\n  {error}" for error in bad_files[:_TOLD]]
        if len(bad_files) > _TOLD:
            told.append(f"\n  and {len(bad_files) - _TOLD} more")
        super().__init__(message + "".join(told))
        self.bad_files = tuple(bad_files)


@dataclass(frozen=True, kw_only=True)
class Samples:
    """One side of a cohort, sorted by patient and file; N may be 0."""

    images: Tensor
    """[N, C, *size], float32; with covariates one more channel holds them, and of a contrastive
    pre-training C more a view of the image."""
    targets: Tensor
    """[N, 1, *size] int64 class indices for segmentation, [N] int64 for classification, [N, labels]
    0 or 1 int64 for several labels."""
    patients: tuple[str, ...]
    """Patient of each sample."""
    volumes: tuple[int, ...]
    """Which file of this side each sample is from. The slices of a volume stand together and in
    order, so that they can be stacked again along a last axis."""
    spacing_mm: tuple[tuple[float, ...], ...]
    """Of each sample, after resampling; of a slice three numbers, the distance of slices last."""
    acquired: tuple[Acquired, ...] = ()
    """Of each sample, how its file came; empty for samples that are of no file."""
    covariates: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """By patient, what else the manifest says of the first of its images."""

    @functools.cached_property
    def digest(self) -> str:
        """SHA-256 of images, targets and patients; computed once, as nothing changes them."""
        arrays = {
            "images": self.images.numpy(),
            "patients": np.array(self.patients, dtype=np.str_),
            "targets": self.targets.numpy(),
        }
        return digest_of_arrays(arrays)

    @property
    def bytes(self) -> int:
        """Of images and targets."""
        return self.images.nbytes + self.targets.nbytes

    @property
    def num_patients(self) -> int:
        """Number of different patients."""
        return len(set(self.patients))

    @property
    def images_each(self) -> list[int]:
        """Samples of each patient, sorted by patient."""
        return [len(indices) for indices in self.patient_indices().values()]

    def patient_indices(self) -> dict[str, list[int]]:
        """Return the samples of each patient, sorted by patient."""
        indices = defaultdict(list)
        for index, patient in enumerate(self.patients):
            indices[patient].append(index)
        return dict(sorted(indices.items()))


@dataclass(frozen=True, kw_only=True)
class Cohort:
    """All that a site brings to a study."""

    train: Samples
    held_out: Samples
    choosing: Samples
    """Who neither trains nor is tested, and chooses how the site answers (task.threshold_share)."""
    bad_files: tuple[BadFileError, ...]
    """Files left out; always empty with data.on_bad_file=stop."""
    fingerprint: str
    """SHA-256 over the sorted contents of all files used: the same data set has the same one,
    wherever it lies and in whatever order it is listed."""

    @property
    def bytes(self) -> int:
        """Of the images and targets of all sides."""
        return self.train.bytes + self.held_out.bytes + self.choosing.bytes


def load_cohort(rows: Sequence[Row], data: DataConfig, task: TaskConfig, seed: int) -> Cohort:
    """Return the cohort of a manifest's rows. Neither it nor the split depends on their order.

    Where rows state a split it holds; else the split is drawn from the seed (draw_held_out). Who
    chooses is drawn from those who would train (draw_choosing), and of the others train_share.
    Only with labels can a patient be tested, or choose. Where a study learns without
    (task.unlabelled) the others train, and whom train_share leaves out trains as one of them.

    Raises:
        BadCohortError: a file is bad and data.on_bad_file is stop (all of them are listed), or no
            file is left.
        ValueError: only some rows state a split, or a patient is on both sides.
    """
    sides = stated_sides(rows)
    rows = sorted(rows, key=lambda row: (row.patient, str(row.image)))
    rows, bad_files = _without_repeats(rows)
    cases, bad_files = _read(rows, data, task, bad_files)
    training, held_out, choosing = _chosen(cases, sides, data, task, seed)
    silent = _silent(training & _labelled(cases), data, seed)
    if task.unlabelled is None:
        training = training - silent
    cases = [(row, case.unlabelled() if row.patient in silent else case) for row, case in cases]

    def of(chosen: Set[str], unlabelled: bool = False) -> Samples:
        theirs = [case for case in cases if case[0].patient in chosen]
        return _samples([c for c in theirs if unlabelled or c[1].labelled], data, task)

    return Cohort(
        train=of(training, unlabelled=True),
        held_out=of(held_out),
        choosing=of(choosing),
        bad_files=tuple(bad_files),
        fingerprint=_fingerprint(file for row, _ in cases for file in _files(row, data, task)),
    )


def _read(
    rows: Sequence[Row], data: DataConfig, task: TaskConfig, repeated: Sequence[BadFileError]
) -> tuple[list[tuple[Row, Case]], list[BadFileError]]:
    """Return what can be used, and what cannot, those that are repeated among it."""
    bad_files = list(repeated)
    cases: list[tuple[Row, Case]] = []
    owner: dict[str, str] = {}
    for row in rows:
        try:
            case = read_case(row, data, task)
            _check_no_twin(row, images_of(row, data).values(), owner)
            cases.append((row, case))
        except BadFileError as error:
            bad_files.append(error)
    if bad_files and data.on_bad_file == "stop":
        raise BadCohortError(
            f"{len(bad_files)} bad files; mend them, or set data.on_bad_file=skip to go on "
            "without them:",
            bad_files,
        )
    if not cases:
        raise BadCohortError(
            f"none of {len(rows)} images can be used; mend them, or give another manifest:",
            bad_files,
        )
    return cases, bad_files


def _chosen(
    cases: Sequence[tuple[Row, Case]],
    sides: Mapping[str, str],
    data: DataConfig,
    task: TaskConfig,
    seed: int,
) -> tuple[Set[str], Set[str], Set[str]]:
    """Return who trains, who is held out and who chooses; sides: as the rows state them."""
    patients, labelled = {row.patient for row, _ in cases}, _labelled(cases)
    if sides:
        tested = {patient for patient in patients if sides[patient] == "test"}
    else:
        tested = set(draw_held_out(labelled, data.held_out, seed))
    choosing = draw_choosing(labelled - tested, task.choosing_share, seed)
    return patients - tested - choosing, tested & labelled, choosing


def _silent(labelled: Set[str], data: DataConfig, seed: int) -> Set[str]:
    """Return of whose labels a study does without."""
    if data.train_share is None:
        return set()
    return labelled - draw_held_out(labelled, data.train_share, seed_of(seed, "train_share"))


def _labelled(cases: Sequence[tuple[Row, Case]]) -> set[str]:
    return {row.patient for row, case in cases if case.labelled}


def draw_held_out(patients: Iterable[str], share: float, seed: int) -> frozenset[str]:
    """Return round(share x patients) of the patients, drawn from the seed.

    With a share strictly between 0 and 1 and at least two patients, each side has at least one.
    Each patient has a random number of its own (SHA-256 of seed and name) and the smallest are
    held out, so the draw does not depend on an order, and a patient who joins or leaves the cohort
    moves at most one other across.
    """
    names = sorted(set(patients), key=lambda name: (seed_of(seed, "held_out", name), name))
    count = round(share * len(names))
    if 0.0 < share < 1.0 and len(names) >= 2:
        count = min(max(count, 1), len(names) - 1)
    return frozenset(names[:count])


def draw_choosing(patients: Set[str], share: float, seed: int) -> frozenset[str]:
    """Return who chooses: each patient with the chance `share`, by a number of the patient's own.

    So a patient who joins or leaves moves nobody else across. If all were drawn nobody is, since
    nobody would be left to train.
    """
    chosen = frozenset(name for name in patients if _own_number(seed, name) < share)
    return frozenset() if chosen == patients else chosen


def _own_number(seed: int, name: str) -> float:
    return seed_of(seed, "who chooses the threshold", name) / 2**63


def _without_repeats(rows: Sequence[Row]) -> tuple[list[Row], list[BadFileError]]:
    """Return the rows with each image once, and an error for each image listed again.

    Of equal rows one stays; where they contradict each other none can be believed.
    """
    listed: defaultdict[Path, list[Row]] = defaultdict(list)
    for row in rows:
        listed[row.image.resolve()].append(row)
    kept: list[Row] = []
    bad_files: list[BadFileError] = []
    for same in listed.values():
        if all(row == same[0] for row in same):
            kept.append(same[0])
        if len(same) > 1:
            bad_files.append(
                BadFileError(same[0].image, f"is listed {len(same)} times", "keep one of its rows")
            )
    return kept, bad_files


def _check_no_twin(row: Row, images: Iterable[Path], owner: dict[str, str]) -> None:
    """Note whose images they are; raise BadFileError if, byte for byte, one was another's."""
    for path in images:
        if owner.setdefault(digest_of(path), row.patient) != row.patient:
            raise BadFileError(
                path,
                "is, byte for byte, an image of another patient too",
                "give both the same patient, or keep the one that is right",
            )


def _samples(cases: Sequence[tuple[Row, Case]], data: DataConfig, task: TaskConfig) -> Samples:
    none = torch.zeros(0, data.planes, *data.size)
    no_targets = none[:, :1] if task.dense else torch.zeros(0)
    # One entry a sample: the slices of a file share its row, its case and its number.
    entries = [
        (row, case, number)
        for number, (row, case) in enumerate(cases)
        for _ in range(len(case.images))
    ]
    return Samples(
        images=torch.cat([case.images for _, case in cases] or [none]),
        targets=torch.cat([case.targets for _, case in cases] or [no_targets.long()]),
        patients=tuple(row.patient for row, _, _ in entries),
        volumes=tuple(number for _, _, number in entries),
        spacing_mm=tuple(case.spacing_mm for _, case, _ in entries),
        acquired=tuple(case.acquired for _, case, _ in entries),
        covariates={row.patient: row.covariates for row, _ in reversed(cases)},
    )


def _files(row: Row, data: DataConfig, task: TaskConfig) -> list[Path]:
    mask = [row.mask] if isinstance(task, SegmentationConfig) and row.mask is not None else []
    return [*images_of(row, data).values(), *mask]


def _fingerprint(files: Iterable[Path]) -> str:
    digests = sorted(bytes.fromhex(digest_of(path)) for path in set(files))
    return hashlib.sha256(b"".join(digests)).hexdigest()
