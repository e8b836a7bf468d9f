"""One study at one site: describe, train, evaluate. Plain Python; it knows nothing of Flower."""

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from pydantic import TypeAdapter
from torch import Tensor

from client.appraisal import Appraisal, limits_of_profile
from client.approval import Approvals
from client.arriving import Arrivals, check_beginning, check_layout
from client.cohort import Samples
from client.device import usable_device
from client.local_round import Controls, Place, local_round
from client.log import site_log
from client.outbox import Kept, Outbox, site_key
from client.privacy.account import Account, ledger_of, profile_noise
from client.privacy.gate import Limits, leave
from client.privacy.policy import check_study
from client.progress import OnProgress, unheard
from client.site import Site, load_site
from client.told import note_told
from client.work import (
    MEGABYTE,
    Work,
    agreed_study,
    physical_batch,
    release_key,
    travelling_layout,
    work_for,
)
from common.coding import coded_way
from common.contract import (
    Description,
    RefusalError,
    Released,
    Request,
    TrainReply,
)
from common.control import PREFIX, parted
from common.durable import is_durable
from common.seeding import seed
from common.state import Arrays, State, arrays_of, digest_of, state_of, tensors_of
from common.subgroups import groups_of

LOOK_S = 2.0
"""How often the data officer's answer is looked at while a study is at work."""
LONG_S = 1.0
"""A virtual hospital keeps an answer that took longer: a simulation that is killed late in a round
does not make all of them again."""
_ReplyAdapter = TypeAdapter(TrainReply)


class Names(NamedTuple):
    """Of an update: the request's, and its own (client/outbox.py)."""

    asked: str
    release: str


class Trainer:
    """The half of a hospital that sees the data."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self._outbox = Outbox(site.state_path)
        # Not asked by Site: the half without torch reads the same settings.
        self._device = usable_device(site.device)
        self._policy = site.load_policy()
        self._log = site_log(Path(site.folder))

    def consent(self, request: Request) -> None:
        """Raise RefusalError unless data officer and policy let the request's study run now."""
        approvals = Approvals(self.site.state_path)
        study, _ = agreed_study(request.study, self._policy, approvals)
        check_study(self._policy, study, patients_train=0)

    def describe(self, request: Request) -> Released:
        """Read and check everything, and return what the server may know before the first round.

        The whole study is held against the policy, the ledger and this machine's memory, so that
        what cannot be done is refused before any work.
        """
        with self._working(request) as work:
            with self._account(work) as account:
                if account is not None:
                    account.check_all()
            if work.plan is not None:
                images, memory = physical_batch(work, self._device)
                self._log.info(
                    "a pass takes %d images; an image keeps %.1f MB, in plain training %.1f MB",
                    images,
                    memory.private_bytes / MEGABYTE,
                    memory.plain_bytes / MEGABYTE,
                )
            about = Description(
                site=self.site.name,
                patients_train=work.cohort.train.num_patients,
                patients_held_out=work.cohort.held_out.num_patients,
                images_train=len(work.cohort.train.patients),
                bad_files=len(work.cohort.bad_files),
            )
            return self._noted(work, leave(about, None, self._limits(work, request), self._policy))

    def train(
        self, request: Request, weights: Arrays, on_progress: OnProgress = unheard
    ) -> Released:
        """Train the incoming model for one round and return the update.

        It is paid for before it is computed. The same request gives the same bytes and is charged
        once: a finished update is kept until the next, so that a killed server or site costs no
        epsilon. A virtual hospital makes a short one again, for the same charge.

        on_progress: called after each step, and with (0, 0) after each batch of the evaluation. If
        it raises StoppedError, training ends there and nothing is kept; what was paid stays paid,
        and the same request trains again for it. So it does if the study is rejected meanwhile.
        """
        began = time.monotonic()
        on_progress = self._while_agreed(request, on_progress)
        with self._working(request) as work:
            return self._train(work, request, weights, began, on_progress)

    def evaluate(
        self, request: Request, weights: Arrays, on_progress: OnProgress = unheard
    ) -> Released:
        """Return the incoming model's estimates on the held-out patients.

        on_progress: called with (0, 0) after each batch; it may raise StoppedError.
        """
        began = time.monotonic()
        on_progress = self._while_agreed(request, on_progress)
        with self._working(request) as work:
            if work.study.model.members is not None:
                check_beginning(work.study, request, weights)
            self._load(work, weights)
            with self._account(work) as account:
                found = self._appraisal(work, account, request, on_progress).reply(weights)
            found = replace(found, seconds=time.monotonic() - began)
            return self._noted(work, leave(found, None, self._limits(work, request), self._policy))

    def _train(
        self, work: Work, request: Request, weights: Arrays, began: float, on_progress: OnProgress
    ) -> Released:
        if not 1 <= request.round <= work.study.rounds:
            raise RefusalError(
                "study", f"the study has no such round; ask for 1 to {work.study.rounds}"
            )
        if not work.cohort.train.num_patients:
            raise RefusalError("data", "this site has no training patients; do not ask it to train")
        if not work.trains:
            raise RefusalError("study", "the study says that this site is tested and never trains")
        weights = self._arrived(work, request, weights)
        check_beginning(work.study, request, weights)
        asked = self._release(work, request, weights, work.cohort.train)
        kept = work.kept
        again = kept is not None and kept.asked == asked
        release = kept.release if kept is not None and again else self._next_release(work, asked)
        with self._account(work) as account:
            if account is not None:
                account.pay_training(release)
            if kept is None or not again:
                names = Names(asked, release)
                kept = self._trained(work, account, request, weights, names, began, on_progress)
            reply = _ReplyAdapter.validate_python(kept.body)
            if account is not None:
                reply = replace(reply, privacy=account.spent())
        limits = self._limits(work, request)
        return self._noted(work, leave(reply, kept.leaving, limits, self._policy))

    def _noted(self, work: Work, answer: Released) -> Released:
        try:
            note_told(self.site.state_path, work.digest, answer)
        except OSError as error:
            # It is for people to look at; what was paid for leaves nevertheless.
            self._log.warning("what was told is not written down: %s", error)
        return answer

    def _appraisal(
        self, work: Work, account: Account | None, request: Request, on_progress: OnProgress
    ) -> Appraisal:
        return Appraisal(
            work=work,
            request=request,
            account=account,
            policy=self._policy,
            place=self._place(),
            on_progress=on_progress,
            log=self._log,
        )

    def _while_agreed(self, request: Request, on_progress: OnProgress) -> OnProgress:
        looked_at = time.monotonic()

        def step(done: int, of: int) -> None:
            nonlocal looked_at
            if time.monotonic() - looked_at > LOOK_S:
                self.consent(request)
                looked_at = time.monotonic()
            on_progress(done, of)

        return step

    def _working(self, request: Request) -> AbstractContextManager[Work]:
        torch.set_num_threads(self.site.threads)
        approvals = Approvals(self.site.state_path)
        return work_for(
            request.study,
            self.site.manifest_path,
            self._policy,
            approvals,
            self._device,
            self.site.name,
        )

    @contextmanager
    def _account(self, work: Work) -> Iterator[Account | None]:
        """Hold the data set's ledger; None where nothing that leaves is charged to anybody."""
        cohort = work.cohort
        patients = cohort.train.num_patients or cohort.held_out.num_patients
        noised = self._policy.may_leave.metrics_noise_multiplier > 0
        noised = noised or profile_noise(work.study, self._policy) is not None
        unprotected = work.plan is None and work.trains
        if work.plan is None and not unprotected and not (noised and patients):
            yield None
            return
        with ledger_of(self.site.ledgers_path, work.data_set) as ledger:
            yield Account(
                ledger=ledger,
                policy=self._policy,
                study=work.study,
                digest=work.digest,
                plan=work.plan,
                unprotected=unprotected,
                patients=patients,
            )

    def _limits(self, work: Work, request: Request) -> Limits:
        return Limits(
            site=self.site.name,
            round=request.round,
            patients_train=work.cohort.train.num_patients,
            patients_held_out=work.cohort.held_out.num_patients,
            arrays=travelling_layout(work),
            codec=work.study.codec_up,
            metrics={name: (m.low, m.high) for name, m in work.task.metrics.items()},
            metrics_noise_multiplier=self._policy.may_leave.metrics_noise_multiplier,
            subgroups=frozenset(groups_of(self._policy.may_leave.subgroups_of(work.study))),
            **limits_of_profile(work, self._policy),
        )

    def _release(self, work: Work, request: Request, weights: Arrays, samples: Samples) -> str:
        key = site_key(self.site.state_path)
        return release_key(work, request.round, weights, samples, self._device, key)

    def _next_release(self, work: Work, asked: str) -> str:
        """Return the name of an update that is yet to be made.

        What the site keeps from an earlier round goes into the training too: with another such
        state the same request must not meet the same noise.
        """
        kept = work.kept
        own = {} if kept is None else {**kept.local, **parted(kept.weights)[1]}
        return f"{asked}-{digest_of(arrays_of(own))}" if own else asked

    def _trained(
        self,
        work: Work,
        account: Account | None,
        request: Request,
        weights: Arrays,
        names: Names,
        began: float,
        on_progress: OnProgress,
    ) -> Kept:
        self._load(work, weights)
        appraisal = self._appraisal(work, account, request, on_progress)
        estimates = appraisal.scores(weights).estimates if request.evaluate else {}
        controls = self._controls(work, weights)
        outcome, own = local_round(
            work, self._place(), request.round, names.release, controls, on_progress
        )
        state = state_of(work.model)
        wanted = request.evaluate and work.study.strategy.generalisation_step is not None
        trained = appraisal.scores(arrays_of(state)).estimates if wanted else {}
        reply = TrainReply(
            site=self.site.name,
            round=request.round,
            patients=work.cohort.train.num_patients,
            steps=outcome.steps,
            seconds=round(time.monotonic() - began, 3),
            train_loss=outcome.mean_loss,
            estimates=estimates,
            trained=trained,
        )
        update = {n: t for n, t in state.items() if n not in work.local | work.frozen}
        update |= {PREFIX + name: tensor for name, tensor in own.items()}
        self._refuse_broken(update)
        coded, left = self._coded(work, request, weights, update)
        kept = Kept(
            asked=names.asked,
            release=names.release,
            body=asdict(reply),
            weights=update,
            local={name: t for name, t in state.items() if name in work.local},
            coded=coded,
            left=left,
        )
        # A virtual hospital that is asked again trains again: on a CPU to the same bytes.
        if is_durable() or kept.stays or reply.seconds > LONG_S:
            self._outbox.store(kept)
        return kept

    def _arrived(self, work: Work, request: Request, weights: Arrays) -> Arrays:
        """Return the model of the round; what cannot be coded again is refused before it costs."""
        if work.study.codec_down is not None:
            arrivals, layout = Arrivals(self.site.state_path), travelling_layout(work)
            return arrivals.model(request, weights, work.study.codec_down, layout)
        if work.study.codec_up is not None:
            check_layout(weights, travelling_layout(work))
        return weights

    def _coded(
        self, work: Work, request: Request, incoming: Arrays, update: State
    ) -> tuple[Tensor | None, dict[str, Tensor]]:
        codec = work.study.codec_up
        if codec is None:
            return None, {}
        left = {} if work.kept is None else work.kept.left
        draw = seed(work.study.seed, request.round, self.site.name, "rounding")
        return coded_way(incoming, update, left, codec, draw)

    def _controls(self, work: Work, weights: Arrays) -> Controls:
        """Return the variates that came with the weights, and the site's own of the last round."""
        everybodys = tensors_of(parted(weights)[1])
        own = {} if work.kept is None else parted(work.kept.weights)[1]
        return Controls(
            everybodys, {n: own.get(n, torch.zeros_like(c)) for n, c in everybodys.items()}
        )

    def _load(self, work: Work, weights: Arrays) -> None:
        state = tensors_of(parted(weights)[0])
        stays = work.local | work.frozen
        if stays:
            own = work.model.state_dict()
            state |= {name: own[name] for name in stays} | work.kept_local
        try:
            work.model.load_state_dict(state, strict=True)
        except RuntimeError as error:
            raise RefusalError("study", "the weights do not fit the study's model") from error

    def _place(self) -> Place:
        return Place(self.site.name, site_key(self.site.state_path), self._device)

    def _refuse_broken(self, weights: dict[str, Tensor]) -> None:
        # NumPy's way is several times as fast as PyTorch's.
        broken = [n for n, array in arrays_of(weights).items() if not np.isfinite(array).all()]
        if broken:
            raise RefusalError(
                "training",
                f"training diverged: {len(broken)} tensors are not finite; lower training.lr",
            )


def trainer_at(path: Path) -> Trainer:
    """Return the trainer of the site whose settings are in a site.yaml."""
    return Trainer(load_site(path))
