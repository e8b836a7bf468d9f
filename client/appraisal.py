"""What a site tells of a model: its metrics, those of the site's own models, a profile."""

import hashlib
import logging
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from torch import Tensor

from client.cohort import Samples
from client.evaluation import chosen_by, patient_rows, predict
from client.local_round import Place
from client.own_models import own_models
from client.privacy.account import Account, profile_noise
from client.privacy.gate import CALIBRATION
from client.privacy.policy import Policy
from client.privacy.statistics import told_apart
from client.profile import profile_of, rows_of
from client.progress import OnProgress
from client.scores import Scores, exact_scores, gain_of, noised_scores
from client.subgroups import Members, Told, exact_subgroups, members_of, noised_subgroups
from client.work import Work, release_key
from common.contract import EvaluateReply, Profile, Reliability, Request
from common.profile import profiled_between, sizes_of
from common.seeding import secret_generator, seed
from common.state import Arrays, arrays_of, digest_of, state_of
from common.tasks.reliability import reliability
from common.tasks.task import Task


@dataclass(frozen=True, kw_only=True)
class Appraisal:
    """One message's questions about a model, at one site."""

    work: Work
    """Its model has the weights that came."""
    request: Request
    account: Account | None
    policy: Policy
    place: Place
    on_progress: OnProgress
    log: logging.Logger

    def reply(self, weights: Arrays) -> EvaluateReply:
        """Return all that the request asks; the time is not in it yet."""
        # In between, the model's metrics come with the next round; here they would cost again.
        between = self._between()
        scores = Scores() if between else self.scores(weights)
        profile = self._profile(weights)
        subgroups = self._subgroups(weights)
        if self.request.round == self.work.study.rounds and not self.request.compare:
            self._write_page()
        others = self._of_own_models(weights) if self._may_compare() else {}
        task, at = self.work.task, self._bootstrap_seed()
        charged = profile is not None and profile.noise_std > 0 and self.account is not None
        return EvaluateReply(
            site=self.place.site,
            round=self.request.round,
            seconds=0.0,
            estimates=scores.estimates,
            others={name: other.estimates for name, other in others.items()},
            gains={name: gain_of(scores, other, task, at) for name, other in others.items()},
            subgroups=subgroups,
            reliability=self._reliability(scores),
            profile=profile,
            privacy=self.account.spent() if charged and self.account is not None else None,
        )

    def scores(self, weights: Arrays) -> Scores:
        """Return the metrics of work.model, whose weights these are, on the held-out patients."""
        work, held_out = self.work, self.work.cohort.held_out
        if held_out.num_patients < self.policy.cohort.least_patients_told:
            return Scores()
        release = f"{self._metrics_release(weights)}-metrics"
        multiplier = self._paid(release)
        probabilities = self._probabilities()
        if not multiplier:
            return exact_scores(probabilities, held_out, self._task(), self._bootstrap_seed())
        noise = secret_generator(self.place.key, release, "metrics")
        return noised_scores(probabilities, held_out, work.task, multiplier, noise)

    def _paid(self, release: str) -> float:
        """Return the noise that the metrics of a release have; they are charged for it first."""
        multiplier = self.policy.may_leave.metrics_noise_multiplier
        if multiplier and self.account is not None:
            self.account.pay_metrics(release, multiplier)
        return multiplier

    def _probabilities(self, samples: Samples | None = None) -> Tensor:
        """Return what work.model says of samples, or of the held-out patients, [N, K, ...]."""
        work, on_batch = self.work, partial(self.on_progress, 0, 0)
        samples = work.cohort.held_out if samples is None else samples
        return predict(work.model, samples, work.task, self.place.device, on_batch)

    def _task(self) -> Task:
        """Return the task as the site answers by work.model: who chooses has chosen."""
        choosing = self.work.cohort.choosing
        # A threshold of few patients would tell of them, by what it does to the others.
        if choosing.num_patients < max(self.policy.cohort.least_patients_told, 1):
            return self.work.task
        return chosen_by(lambda: self._probabilities(choosing), choosing, self.work.task)

    def _write_page(self) -> None:
        """Write the site's own page; a page that cannot be drawn costs nobody the figures."""
        work = self.work
        # The networks of an ensemble are other sites' own, which a site is not to keep.
        if not work.cohort.held_out.num_patients or work.study.model.members is not None:
            return
        probabilities = self._probabilities()
        try:
            # Loads matplotlib, which no round needs.
            from client.page import write_page

            decided = replace(work, task=self._task())
            path = write_page(self.work.state, self.place.site, decided, probabilities)
            self.log.info("the worst held-out patients of the final model: %s", path)
        except Exception:
            self.log.exception("the site's own page was not written")

    def _of_own_models(self, weights: Arrays) -> dict[str, Scores]:
        work, found = self.work, {}
        if self.account is not None:
            self.account.pay_own_models(f"{self._release(weights, work.cohort.train)}-own")
        federated = state_of(work.model)
        own = own_models(work, self.place, federated, work.state, self.on_progress)
        for name, state in own:
            work.model.load_state_dict(state)
            found[name] = self.scores(arrays_of(state))
        return found

    def _reliability(self, scores: Scores) -> list[Reliability]:
        # Noised metrics have no rows, and no calibration that noise would leave anything of.
        told = self.policy.may_leave.decimals_of(CALIBRATION) is not None
        if not self._at_the_end() or not told or not scores.rows:
            return []
        return reliability(scores.rows, self.policy.cohort.least_patients_told)

    def _subgroups(self, weights: Arrays) -> Told:
        """Return the metrics of the subgroups that the study names and the policy lets out."""
        work, held_out = self.work, self.work.cohort.held_out
        least = self.policy.cohort.least_patients_told
        asked = self.policy.may_leave.subgroups_of(work.study)
        if not asked or not self._at_the_end() or held_out.num_patients < max(least, 1):
            return {}
        members = members_of(sorted(set(held_out.patients)), held_out.covariates, asked)
        release = f"{self._metrics_release(weights)}-{_named(members)}-subgroups"
        multiplier = self._paid(release)
        probabilities = self._probabilities()
        if not multiplier:
            task = self._task()
            rows = patient_rows(probabilities, held_out, task)
            return exact_subgroups(rows, members, task, self._bootstrap_seed(), least)
        rows = patient_rows(told_apart(probabilities, work.task), held_out, work.task)
        noise = secret_generator(self.place.key, release, "subgroups")
        return noised_subgroups(rows, members, work.task, multiplier, noise, least)

    def _profile(self, weights: Arrays) -> Profile | None:
        """Return how the site's images look; None where nobody asks, or it may not leave."""
        multiplier = profile_noise(self.work.study, self.policy)
        cohort, least = self.work.cohort, self.policy.cohort.least_patients_told
        sides = [s for s in (cohort.train, cohort.held_out) if s.num_patients >= max(least, 1)]
        if multiplier is None or not sides or not (self._at_the_end() or self._between()):
            return None
        on_batch = partial(self.on_progress, 0, 0)
        rows = rows_of(self.work.model, sides, self.work.study, self.place.device, on_batch)
        # Named by the rows themselves: whatever they come from, two totals never have one noise.
        named = [digest_of(row) for row in rows]
        known = hashlib.sha256("".join(named).encode()).hexdigest()
        release = f"{self._release(weights, cohort.train)}-{known}-profile"
        if self.account is not None:
            self.account.pay_profile(release, multiplier)
        noise = secret_generator(self.place.key, release, "profile")
        return profile_of(rows, multiplier, noise)

    def _may_compare(self) -> bool:
        """Whether own models are trained and told of: after the last round, if the policy says so.

        They are not private: what is told of them tells of single training patients.
        """
        asked = self.work.study.evaluation
        wanted = asked is not None and (asked.own_model or asked.personal_rounds > 0)
        told = self.policy.may_leave.own_models
        return wanted and self.work.trains and self._at_the_end() and told

    def _at_the_end(self) -> bool:
        return self.request.compare and self.request.round == self.work.study.rounds

    def _between(self) -> bool:
        return self.request.compare and profiled_between(self.work.study, self.request.round)

    def _release(self, weights: Arrays, samples: Samples) -> str:
        place = self.place
        return release_key(self.work, self.request.round, weights, samples, place.device, place.key)

    def _metrics_release(self, weights: Arrays) -> str:
        held_out = self.work.cohort.held_out
        # What stays at the site is part of the model that is evaluated.
        kept = arrays_of(self.work.kept_local)
        # Distances in mm stand on the voxels' size too.
        sizes = hashlib.sha256(repr(held_out.spacing_mm).encode()).hexdigest()
        return f"{self._release({**kept, **weights}, held_out)}-{sizes}"

    def _bootstrap_seed(self) -> int:
        # One for all models of a request: paired differences need the same resamples.
        return seed(self.work.study.seed, self.request.round, self.place.site, "bootstrap")


def _named(members: Members) -> str:
    """Return a name of who is in which group: other groups never meet the same noise."""
    return hashlib.sha256(repr(members).encode()).hexdigest()


def limits_of_profile(work: Work, policy: Policy) -> dict[str, Any]:
    """Return what the gate is to know of a profile; empty where none may leave."""
    multiplier = profile_noise(work.study, policy)
    if multiplier is None:
        return {}
    return {"profile": sizes_of(work.study), "profile_noise_multiplier": multiplier}
