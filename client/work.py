"""Everything that one message works with: the study as this site composes it, data, network."""

import functools
import hashlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import torch
from torch import Tensor, nn

from client.approval import MOST_OVERRIDES_BYTES, Approvals, check_approved
from client.cohort import BadCohortError, Cohort, Samples
from client.mixed_precision import check_mixed_precision
from client.outbox import Kept, Outbox
from client.privacy.data_set import DataSet
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
from client.resident import CACHED, composed, composed_digest, new_network, resident
from client.site_data import Listed, listed_at, read_cohort, read_data_set
from client.training import steps_of
from common.config import check_travelled
from common.contract import RefusalError, StudyReference
from common.control import with_zero_controls
from common.framed_files import Layout
from common.schema import SettingsError
from common.segments import seen_size
from common.state import Arrays, digest_of, numpy_dtype_of
from common.study import Study
from common.tasks.registry import build_task
from common.tasks.task import Task

MEGABYTE = 2**20


@dataclass(frozen=True, kw_only=True)
class Work:
    """What a message asks this site to work with."""

    overrides: tuple[str, ...]
    study: Study
    digest: str
    listed: Listed
    """The rows that the cohort was read from."""
    cohort: Cohort
    task: Task
    model: nn.Module
    """On the site's device; its weights are those of the study's start. It is lent for the message
    (client/resident.py)."""
    local: frozenset[str]
    """Names of the tensors that are this site's own and never travel."""
    frozen: frozenset[str]
    """Names of those that nothing trains: every site has them from the start."""
    trains: bool
    """Whether this site trains: it has training patients, and the study does not only test it."""
    plan: PrivatePlan | None
    """Of the private training; None without privacy, or where nobody trains."""
    state: Path
    """The site's folder for what outlives a process."""

    @property
    def data_set(self) -> DataSet:
        """What the ledger knows the cohort's data by."""
        return read_data_set(self.listed)

    @functools.cached_property
    def kept(self) -> Kept | None:
        """What the site keeps of the study's last round; read once."""
        kept = Outbox(self.state).last()
        ours = kept is not None and kept.release.startswith(self.digest)
        return kept if ours else None

    @property
    def kept_local(self) -> dict[str, Tensor]:
        """The site's own tensors as the last round left them; empty before the first."""
        return self.kept.local if self.local and self.kept is not None else {}


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
    digest = composed_digest(overrides)
    if digest != reference.digest:
        raise RefusalError(
            "study",
            f"the server runs study {_told(reference.digest)}, this site composes "
            f"{digest} from the same settings; install the same version of wardround",
        )
    check_approved(policy, approvals, digest, study.name, overrides, datetime.now(UTC))
    return study, digest


@contextmanager
def work_for(
    reference: StudyReference,
    manifest: Path,
    policy: Policy,
    approvals: Approvals,
    device: torch.device,
    site: str,
) -> Iterator[Work]:
    """Compose the study, read and check the data, and lend the network for a block.

    Raises:
        RefusalError: as agreed_study; or the data cannot be used, or the policy, the size of the
            cohort or the device does not allow it.
    """
    # Before all that would tell of this site's policy or machine.
    study, digest = agreed_study(reference, policy, approvals)
    overrides = tuple(reference.overrides)
    # Before any file is opened: what reading it would say is an answer too.
    check_study(policy, study, patients_train=0)
    listed = listed_at(manifest)
    cohort = _cohort(listed, overrides)
    tested = study.model.members is not None or site in (study.strategy.tested or [])
    trains = cohort.train.num_patients > 0 and not tested
    if trains:
        _mixed_precision_fits(overrides, device)
    check_study(policy, study, cohort.train.num_patients if trains else 0)
    each = cohort.train.images_each
    plan = private_plan(study, each) if trains and study.privacy.private else None
    if trains:
        _check_turns(
            study, steps_of(study.training, sum(each)) if plan is None else plan.steps_a_round
        )
    with resident(overrides, device) as network:
        yield Work(
            overrides=overrides,
            study=study,
            digest=digest,
            listed=listed,
            cohort=cohort,
            task=build_task(study.task),
            model=network.network,
            local=network.local,
            frozen=network.frozen,
            state=approvals.state,
            trains=trains,
            plan=plan,
        )


@functools.lru_cache(maxsize=CACHED)
def _mixed_precision_fits(overrides: tuple[str, ...], device: torch.device) -> None:
    """Check it once a process: it passes an image through a network that has no numbers."""
    check_mixed_precision(composed(overrides), device)


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


def travelling_layout(work: Work) -> dict[str, Layout]:
    """Return the shape and the dtype of every tensor that the study's messages have."""
    stays = work.local | work.frozen
    state = {n: t for n, t in work.model.state_dict().items() if n not in stays}
    if work.study.strategy.control_variates:
        trained = frozenset(name for name, _ in work.model.named_parameters())
        # Of no numbers: only their shapes are asked for.
        state = with_zero_controls({n: t.to("meta") for n, t in state.items()}, trained)
    return {name: (tuple(t.shape), numpy_dtype_of(t)) for name, t in state.items()}


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
    versions = (_installed(), torch.__version__, device.type)
    parts = [work.digest, str(round_number), digest_of(weights), samples.digest, *versions]
    if work.plan is not None:
        parts.append(str(physical_batch(work, device)[0]))
    parts.append(hashlib.sha256(key).hexdigest())
    return f"{work.digest}-{hashlib.sha256(chr(31).join(parts).encode()).hexdigest()}"


@functools.cache
def _installed() -> str:
    # It parses a file each time.
    return version("wardround")


def _cohort(listed: Listed, overrides: tuple[str, ...]) -> Cohort:
    try:
        return read_cohort(listed, overrides)
    except BadCohortError as error:
        raise RefusalError(
            "data",
            "files of this site cannot be used; its own log names them, or "
            "data.on_bad_file=skip goes on without them",
        ) from error


@functools.lru_cache(maxsize=CACHED)
def _memory(overrides: tuple[str, ...], device: torch.device) -> Memory:
    study = composed(overrides)
    model = new_network(study).to(device)
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
