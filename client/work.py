"""Everything that one message works with: the study as this site composes it, data, network."""

import functools
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from torch import nn

from client.approval import MOST_OVERRIDES_BYTES, Approvals, check_approved
from client.cohort import BadCohortError, Cohort, Samples, load_cohort
from client.content import files_of
from client.manifest import Row, read_folder, read_manifest
from client.mixed_precision import check_mixed_precision
from client.privacy.data_set import DataSet, data_set_of
from client.privacy.dp_sgd import PrivatePlan, private_plan
from client.privacy.engine.attach import UnknownLayerError
from client.privacy.engine.preflight import (
    Memory,
    WrongGradientError,
    memory_bytes,
    memory_of,
    prove,
)
from client.privacy.policy import Policy, check_study
from client.training import steps_of
from common.config import check_travelled, load_study, study_digest
from common.contract import RefusalError, StudyReference
from common.models.layers import lr_factors_of
from common.models.registry import build_model, local_names
from common.models.start import StartError
from common.models.trained import check_something_travels, frozen_names
from common.schema import SettingsError
from common.seeding import seed
from common.segments import seen_size
from common.state import Arrays, digest_of
from common.study import Study
from common.tasks.registry import build_task
from common.tasks.task import Task

CACHED = 64
MEGABYTE = 2**20


@dataclass(frozen=True, kw_only=True)
class Work:
    """What a message asks this site to work with."""

    overrides: tuple[str, ...]
    study: Study
    digest: str
    listed: "Listed"
    """The rows that the cohort was read from."""
    cohort: Cohort
    task: Task
    model: nn.Module
    """On the site's device; its weights are those of the study's start."""
    local: frozenset[str]
    """Names of the tensors that are this site's own and never travel."""
    frozen: frozenset[str]
    """Names of those that nothing trains: every site has them from the start."""
    trains: bool
    """Whether this site trains: it has training patients, and the study does not only test it."""
    plan: PrivatePlan | None
    """Of the private training; None without privacy, or where nobody trains."""

    @property
    def data_set(self) -> DataSet:
        """What the ledger knows the cohort's data by."""
        return _read_data_set(self.listed)


def agreed_study(
    reference: StudyReference, policy: Policy, approvals: Approvals
) -> tuple[Study, str]:
    """Return the study that the server names, as this site composes it, and its digest.

    Raises:
        RefusalError: the study is another one here, or the data officer has not approved it.
    """
    overrides = tuple(reference.overrides)
    if sum(len(text.encode()) for text in overrides) > MOST_OVERRIDES_BYTES:
        raise RefusalError("study", "the settings of the study are too long; shorten its overrides")
    try:
        check_travelled(overrides)
    except SettingsError as error:
        raise RefusalError("study", str(error)) from error
    study = composed(overrides)
    digest = study_digest(study)
    if digest != reference.digest:
        raise RefusalError(
            "study",
            f"the server runs study {_told(reference.digest)}, this site composes "
            f"{digest} from the same settings; install the same version of wardround",
        )
    check_approved(policy, approvals, digest, study.name, overrides, datetime.now(UTC))
    return study, digest


def work_for(
    reference: StudyReference,
    manifest: Path,
    policy: Policy,
    approvals: Approvals,
    device: torch.device,
    site: str,
) -> Work:
    """Compose the study, read and check the data, and build the network.

    Raises:
        RefusalError: as agreed_study; or the data cannot be used, or the policy, the size of the
            cohort or the device does not allow it.
    """
    # Before all that would tell of this site's policy or machine.
    study, digest = agreed_study(reference, policy, approvals)
    overrides = tuple(reference.overrides)
    # Before any file is opened: what reading it would say is an answer too.
    check_study(policy, study, patients_train=0)
    listed = _listed_at(manifest)
    cohort = _cohort(listed, overrides)
    tested = study.model.members is not None or site in (study.strategy.tested or [])
    trains = cohort.train.num_patients > 0 and not tested
    if trains:
        _mixed_precision_fits(overrides, device)
    check_study(policy, study, cohort.train.num_patients if trains else 0)
    model = _network(study)
    each = cohort.train.images_each
    plan = private_plan(study, each) if trains and study.privacy.private else None
    if trains:
        _check_turns(
            study, steps_of(study.training, sum(each)) if plan is None else plan.steps_a_round
        )
    return Work(
        overrides=overrides,
        study=study,
        digest=digest,
        listed=listed,
        cohort=cohort,
        task=build_task(study.task),
        model=model.to(device),
        local=local_names(model, study.model),
        frozen=frozen_names(model),
        trains=trains,
        plan=plan,
    )


@functools.lru_cache(maxsize=CACHED)
def _mixed_precision_fits(overrides: tuple[str, ...], device: torch.device) -> None:
    """Check it once a process: it passes an image through a network that has no numbers."""
    check_mixed_precision(composed(overrides), device)


def _network(study: Study) -> nn.Module:
    try:
        network = build_model(study.model, seed(study.seed, "initial model"))
        check_something_travels(network, study.model)
        lr_factors_of(network, study.training.lr_factors)
    except StartError as error:
        raise RefusalError(
            "weights",
            "this site does not have the weights that the study starts from, or has others; put "
            "their file into its folder of weights",
        ) from error
    except ValueError as error:
        raise RefusalError(
            "study", "the study names parts of its network that are not there, or trains none"
        ) from error
    return network


def _check_turns(study: Study, steps: int) -> None:
    first = study.training.local_first_steps
    if first is not None and first >= steps:
        raise RefusalError(
            "study",
            f"training.local_first_steps={first} leaves none of the {steps} steps of a round here "
            "to what is learned together; lower it, or take more steps",
        )


def _told(digest: str) -> str:
    # What the server calls its study may be anything.
    return digest if re.fullmatch("[0-9a-f]{64}", digest) else "another"


def physical_batch(work: Work, device: torch.device) -> tuple[int, Memory]:
    """Return how many images a private pass takes here, and what one takes; the engine is proved.

    The number is the study's unless the memory of this machine holds fewer.

    Raises:
        RefusalError: not even one image fits, or the network's gradients cannot be told apart.
    """
    memory = _memory(work.overrides, device)
    images = memory.images(work.study.privacy.physical_batch_size, memory_bytes(device))
    if images == 0:
        raise RefusalError(
            "training",
            "the memory of this site does not hold the gradients of one image; choose a "
            "smaller model or smaller images",
        )
    return images, memory


def release_key(
    work: Work,
    round_number: int,
    weights: Arrays,
    samples: Samples,
    device: torch.device,
    key: bytes,
) -> str:
    """Return the name of what is about to leave: the start of its noise, and of its charge.

    Another model, round, patient, label or image must never meet the same noise again, nor one
    release two noises: another device, version, cut into passes or key of the site draws others.
    """
    data = {
        "images": samples.images.numpy(),
        "patients": np.array(samples.patients, dtype=np.str_),
        "targets": samples.targets.numpy(),
    }
    versions = (_installed(), torch.__version__, device.type)
    parts = [work.digest, str(round_number), digest_of(weights), digest_of(data), *versions]
    if work.plan is not None:
        parts.append(str(physical_batch(work, device)[0]))
    parts.append(hashlib.sha256(key).hexdigest())
    return f"{work.digest}-{hashlib.sha256(chr(31).join(parts).encode()).hexdigest()}"


@functools.cache
def _installed() -> str:
    # It parses a file each time.
    return version("wardround")


@functools.lru_cache(maxsize=CACHED)
def composed(overrides: tuple[str, ...]) -> Study:
    """Return the study of the overrides; composed once a process."""
    return load_study(overrides)


def cohort_of(manifest: Path, overrides: tuple[str, ...]) -> Cohort:
    """Return the site's data; read once a process as long as its files and rows are the same."""
    return _read_cohort(_listed_at(manifest), overrides)


@dataclass(frozen=True)
class Listed:
    """The rows of a site, equal to others of equal rows and files: what a cache goes by."""

    rows: list[Row] = field(compare=False)
    stamp: str


def rows_at(manifest: Path) -> list[Row]:
    """Return the rows of a manifest, or of a folder in one of the two layouts."""
    return read_folder(manifest) if manifest.is_dir() else read_manifest(manifest)


def _listed_at(manifest: Path) -> Listed:
    rows = rows_at(manifest)
    return Listed(rows, _stamp(rows))


def _stamp(rows: Sequence[Row]) -> str:
    known = hashlib.sha256()
    for row in rows:
        known.update(repr(row).encode())
        for file in (file for path in row.files for file in files_of(path)):
            if file.exists():
                about = file.stat()
                known.update(f"{about.st_mtime_ns} {about.st_size}".encode())
    return known.hexdigest()


@functools.lru_cache(maxsize=CACHED)
def _read_cohort(listed: Listed, overrides: tuple[str, ...]) -> Cohort:
    study = composed(overrides)
    return load_cohort(listed.rows, study.data, study.task, seed(study.seed, "split"))


@functools.lru_cache(maxsize=CACHED)
def _read_data_set(listed: Listed) -> DataSet:
    return data_set_of(listed.rows)


def _cohort(listed: Listed, overrides: tuple[str, ...]) -> Cohort:
    try:
        return _read_cohort(listed, overrides)
    except BadCohortError as error:
        raise RefusalError(
            "data",
            "files of this site cannot be used; its own log names them, or "
            "data.on_bad_file=skip goes on without them",
        ) from error


@functools.lru_cache(maxsize=CACHED)
def _memory(overrides: tuple[str, ...], device: torch.device) -> Memory:
    study = composed(overrides)
    model = _network(study).to(device)
    shape = (study.data.planes, *seen_size(study))
    try:
        prove(model, shape, device)
    except (UnknownLayerError, WrongGradientError) as error:
        raise RefusalError(
            "privacy",
            "the gradients of single patients cannot be told apart in this network; "
            "choose another model, or privacy=none",
        ) from error
    return memory_of(model, shape, device)
