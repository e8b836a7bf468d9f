"""One study at one site: describe, train, evaluate. Plain Python; it knows nothing of Flower."""

import functools
import hashlib
import time
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from pydantic import TypeAdapter
from torch import Tensor, nn

from client.cohort import BadCohortError, Cohort, load_cohort
from client.evaluation import evaluate, predict
from client.manifest import read_folder, read_manifest
from client.outbox import Kept, Outbox, site_key
from client.privacy.account import Account
from client.privacy.dp_sgd import PrivateGradient, PrivatePlan, private_plan
from client.site import Site, load_site
from client.training import (
    GradientSource,
    LocalResult,
    PlainGradient,
    build_optimizer,
    learning_rate,
    train_round,
)
from common.config import load_study, study_digest
from common.contract import (
    Description,
    Estimate,
    EvaluateReply,
    PrivacySpent,
    RefusalError,
    Request,
    StudyReference,
    TrainReply,
)
from common.models.registry import batch_norm_keys, build_model
from common.seeding import generator, secret_generator, seed
from common.state import Arrays, arrays_of, digest_of, state_of, tensors_of
from common.study import Study
from common.tasks.registry import build_task
from common.tasks.task import Task
from common.transforms import augment

CACHED_COHORTS = 64
LEAST_TOLD_PATIENTS = 5
"""With privacy, estimates over fewer held-out patients stay at the site: the ends of an interval
over two or three patients are single patients' values."""
_ReplyAdapter = TypeAdapter(TrainReply)


@dataclass(frozen=True)
class _Work:
    """Everything that one request works with."""

    study: Study
    digest: str
    cohort: Cohort
    task: Task
    model: nn.Module
    local: frozenset[str]


class Trainer:
    """The half of a hospital that sees the data."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self._outbox = Outbox(site.state_path)
        self._account = Account(site.state_path)
        self._device = torch.device(site.device)

    def describe(self, request: Request) -> Description:
        """Read and check all data, and return what the server may know before the first round."""
        work = self._work(request.study)
        if work.study.privacy.private and work.cohort.train.num_patients:
            private_plan(work.study, work.cohort.train.num_patients)
        return Description(
            site=self.site.name,
            patients_train=work.cohort.train.num_patients,
            patients_held_out=work.cohort.held_out.num_patients,
            images_train=len(work.cohort.train.patients),
            bad_files=len(work.cohort.bad_files),
        )

    def train(self, request: Request, weights: Arrays) -> tuple[TrainReply, Arrays]:
        """Train the incoming model for one round and return the update.

        The same request gives the same bytes and is charged once: a finished update is kept until
        the next, so that a killed server or site costs no epsilon.
        """
        began = time.monotonic()
        work = self._work(request.study)
        if not work.cohort.train.num_patients:
            raise RefusalError("data", "this site has no training patients; do not ask it to train")
        release = self._release(work, request, weights)
        kept = self._outbox.last()
        if kept is None or kept.release != release:
            kept = self._trained(work, request, weights, release, began)
        reply = _ReplyAdapter.validate_python(kept.body)
        if reply.privacy is not None:
            plan = private_plan(work.study, work.cohort.train.num_patients)
            self._account.charge(release, plan.round_cost)
            reply = replace(reply, privacy=self._spent(plan))
        return reply, arrays_of(kept.weights)

    def evaluate(self, request: Request, weights: Arrays) -> EvaluateReply:
        """Return the incoming model's estimates on the held-out patients."""
        began = time.monotonic()
        work = self._work(request.study)
        self._load(work, weights)
        return EvaluateReply(
            site=self.site.name,
            round=request.round,
            seconds=time.monotonic() - began,
            estimates=self._estimates(work, request.round),
        )

    def _work(self, reference: StudyReference) -> _Work:
        torch.set_num_threads(self.site.threads)
        overrides = tuple(reference.overrides)
        study = _composed(overrides)
        digest = study_digest(study)
        if digest != reference.digest:
            raise RefusalError(
                "study",
                f"the server runs study {reference.digest[:12]}, this site composes "
                f"{digest[:12]} from the same settings; install the same version of wardround",
            )
        if study.training.amp and self._device.type == "cpu":
            raise RefusalError(
                "study",
                "training.amp=true needs a GPU, this site trains on a CPU; set amp to false",
            )
        cohort = self._cohort(overrides)
        model = build_model(study.model, seed(study.seed, "initial model"))
        by_policy = study.model.batch_norm_policy == "local"
        local = batch_norm_keys(model) if by_policy else frozenset()
        task = build_task(study.task)
        return _Work(study, digest, cohort, task, model.to(self._device), local)

    def _cohort(self, overrides: tuple[str, ...]) -> Cohort:
        try:
            return cohort_of(self.site.manifest_path, overrides)
        except BadCohortError as error:
            raise RefusalError(
                "data",
                f"{len(error.bad_files)} files cannot be used; the site's own log names them, or "
                "data.on_bad_file=skip goes on without them",
            ) from error

    def _release(self, work: _Work, request: Request, weights: Arrays) -> str:
        # The key of the noise: another model, round, patient, label or image must never meet the
        # same noise again, nor one release two noises (another device or version draws others).
        train = work.cohort.train
        data = {
            "images": train.images.numpy(),
            "patients": np.array(train.patients, dtype=np.str_),
            "targets": train.targets.numpy(),
        }
        versions = (version("wardround"), torch.__version__, self._device.type)
        parts = (work.digest, str(request.round), digest_of(weights), digest_of(data), *versions)
        key = hashlib.sha256("\x1f".join(parts).encode()).hexdigest()
        return f"{work.digest}-{key}"

    def _trained(
        self, work: _Work, request: Request, weights: Arrays, release: str, began: float
    ) -> Kept:
        self._load(work, weights)
        estimates = self._estimates(work, request.round) if request.evaluate else {}
        plan = None
        if work.study.privacy.private:
            plan = private_plan(work.study, work.cohort.train.num_patients)
        outcome = self._local_round(work, request.round, release, plan)
        state = state_of(work.model)
        reply = TrainReply(
            site=self.site.name,
            round=request.round,
            patients=work.cohort.train.num_patients,
            steps=outcome.steps,
            seconds=round(time.monotonic() - began, 3),
            train_loss=outcome.mean_loss,
            estimates=estimates,
            privacy=self._spent(plan) if plan else None,
        )
        kept = Kept(
            release=release,
            body=asdict(reply),
            weights={name: t for name, t in state.items() if name not in work.local},
            local={name: t for name, t in state.items() if name in work.local},
        )
        self._refuse_broken(kept.weights)
        self._outbox.store(kept)
        return kept

    def _local_round(
        self, work: _Work, round_number: int, release: str, plan: PrivatePlan | None
    ) -> LocalResult:
        study, samples = work.study, work.cohort.train
        labels = (round_number, self.site.name)
        lr = learning_rate(study.training, round_number, study.rounds)
        optimizer = build_optimizer(study.training, work.model, lr)
        source: GradientSource
        if plan is None:
            draws = generator(seed(study.seed, *labels, "draws"))
            source = PlainGradient(work.model, study.training, len(samples.patients), draws)
        else:
            # The server knows the study's seed; draws and noise come from the site's own key.
            key = site_key(self.site.state_path)
            draws = secret_generator(key, release, "draws")
            noise = secret_generator(key, release, "noise", device=self._device)
            source = PrivateGradient(work.model, optimizer, plan, study, samples, draws, noise)
        with torch.random.fork_rng():
            # Drop-out alone reads the global generator.
            torch.manual_seed(seed(study.seed, *labels, "dropout"))
            random_part = augment(study.data, seed(study.seed, *labels, "augment"))
            try:
                return train_round(
                    source, optimizer, samples, work.task, study, random_part, self._device
                )
            finally:
                source.close()

    def _load(self, work: _Work, weights: Arrays) -> None:
        state = tensors_of(weights)
        if work.local:
            own = state_of(work.model)
            state |= {name: own[name] for name in work.local} | self._kept_local(work)
        try:
            work.model.load_state_dict(state, strict=True)
        except RuntimeError as error:
            raise RefusalError("study", "the weights do not fit the study's model") from error

    def _kept_local(self, work: _Work) -> dict[str, Tensor]:
        kept = self._outbox.last()
        ours = kept is not None and kept.release.startswith(work.digest)
        return kept.local if kept is not None and ours else {}

    def _estimates(self, work: _Work, round_number: int) -> dict[str, Estimate]:
        held_out = work.cohort.held_out
        least = LEAST_TOLD_PATIENTS if work.study.privacy.private else 1
        if held_out.num_patients < least:
            return {}
        probabilities = predict(work.model, held_out, work.task, self._device)
        at = seed(work.study.seed, round_number, self.site.name, "bootstrap")
        return evaluate(probabilities, held_out, work.task, at)

    def _spent(self, plan: PrivatePlan) -> PrivacySpent:
        return PrivacySpent(
            unit="patient",
            epsilon=self._account.epsilon(plan.delta),
            delta=plan.delta,
            noise_multiplier=plan.noise_multiplier,
            sample_rate=plan.sample_rate,
            steps=self._account.steps(),
        )

    def _refuse_broken(self, weights: dict[str, Tensor]) -> None:
        broken = [name for name, tensor in weights.items() if not tensor.isfinite().all()]
        if broken:
            raise RefusalError(
                "training",
                f"training diverged: {len(broken)} tensors are not finite; lower training.lr",
            )


def trainer_at(path: Path) -> Trainer:
    """Return the trainer of the site whose settings are in a site.yaml."""
    return Trainer(load_site(path))


@functools.lru_cache(maxsize=CACHED_COHORTS)
def _composed(overrides: tuple[str, ...]) -> Study:
    return load_study(overrides)


@functools.lru_cache(maxsize=CACHED_COHORTS)
def cohort_of(manifest: Path, overrides: tuple[str, ...]) -> Cohort:
    """Return the site's data, read once a process: a cache for speed, never for meaning."""
    study = _composed(overrides)
    rows = read_folder(manifest) if manifest.is_dir() else read_manifest(manifest)
    return load_cohort(rows, study.data, study.task, seed(study.seed, "split"))
