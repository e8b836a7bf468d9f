"""What a study may still spend at a site: the ledger, the site's policy and the study's own target.

Everything that a study takes from the patients is paid for here before it is computed, so a study
that may not go on has trained nothing and told nothing.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from client.privacy.data_set import DataSet
from client.privacy.dp_sgd import PrivatePlan
from client.privacy.ledger import (
    Charge,
    Ledger,
    LedgerBusyError,
    LedgerError,
    epsilon_of_charges,
    steps_of,
)
from client.privacy.policy import Policy, Spending, check_spending
from common.accounting import (
    PrivateSteps,
    epsilon_of,
    epsilons_of,
    gaussian_release,
    unprotected_release,
)
from common.contract import PrivacySpent, RefusalError
from common.profile import profiled_between
from common.study import Study

TRAINING, METRICS, OWN_MODELS, PROFILE = "training", "statistics", "evaluation", "profile"


def profile_noise(study: Study, policy: Policy) -> float | None:
    """Return the noise multiplier of the profile that a study has of a site; None: it has none."""
    asked = study.evaluation is not None and study.evaluation.profile
    return policy.may_leave.profile_noise_multiplier if asked else None


@contextmanager
def ledger_of(folder: Path, data_set: DataSet) -> Iterator[Ledger]:
    """Hold a data set's ledger while the block works.

    Raises:
        RefusalError: it cannot be used, in words for the server.
    """
    try:
        ledger = Ledger.open(folder, data_set)
        with ledger.exclusive():
            yield ledger
    except LedgerBusyError as error:
        raise RefusalError(
            "privacy", "another study trains on this site's data just now; ask it again later"
        ) from error
    except LedgerError as error:
        raise RefusalError(
            "privacy",
            "the ledger of what this site's patients have spent cannot be used; "
            "the site's own log says why",
        ) from error


@dataclass(frozen=True, kw_only=True)
class Account:
    """One study's account at one site."""

    ledger: Ledger
    policy: Policy
    study: Study
    digest: str
    """Of the study: its rows in the ledger have it."""
    plan: PrivatePlan | None
    """Of the private training; None for a site that only tests, or trains without privacy."""
    unprotected: bool
    """Whether it trains without privacy, which its policy must have allowed."""
    patients: int
    """Training patients, or the tested ones of a site that only tests."""

    @property
    def delta(self) -> float:
        """The delta of every epsilon here."""
        return 1 / (2 * self.patients) if self.plan is None else self.plan.delta

    @property
    def _own_models(self) -> int:
        """The site's own models, whose metrics are told at the end."""
        asked = self.study.evaluation
        told = self.policy.may_leave.own_models
        return 0 if asked is None or not told else asked.own_model + (asked.personal_rounds > 0)

    def check_all(self) -> None:
        """Refuse a study whose remaining rounds and evaluations would spend too much.

        Raises:
            RefusalError: with the reason and what would pass.
            LedgerError: the ledger cannot be used.
        """
        charges = self._charges(None)
        own = [charge for charge in charges if charge.study == self.digest]
        more = []
        if self.plan is not None:
            cost = self.plan.patient_cost
            done = sum(charge.steps for charge in own if charge.purpose == TRAINING)
            left = cost.steps * self.study.rounds - done
            more += [replace(cost, steps=left)] if left > 0 else []
        multiplier = self.policy.may_leave.metrics_noise_multiplier
        told = sum(charge.purpose == METRICS for charge in own)
        noise = profile_noise(self.study, self.policy)
        profiles = 1 + sum(profiled_between(self.study, r) for r in range(self.study.rounds))
        profiles -= sum(charge.purpose == PROFILE for charge in own)
        if noise and profiles > 0:
            more.append(replace(gaussian_release(noise), steps=profiles))
        evaluations = 1 + -(-self.study.rounds // self.study.evaluate_every)
        trains = self.plan is not None or self.unprotected
        if trains and self.study.strategy.generalisation_step is not None:
            evaluations += self.study.rounds
        subgroups = bool(self.policy.may_leave.subgroups_of(self.study))
        left = evaluations + self._own_models + subgroups - told
        if multiplier and left > 0:
            more.append(replace(gaussian_release(multiplier), steps=left))
        self._check(charges, more)

    def pay_training(self, release: str) -> None:
        """Write down what a round of training costs, unless it is paid; before it is computed.

        Raises:
            RefusalError: the round is over a cap of the site, or over the study's own target.
            LedgerError: the ledger cannot be used or written.
        """
        if self.unprotected:
            self.ledger.charge(release, self.digest, unprotected_release(), TRAINING)
        elif self.plan is not None:
            self._pay(release, self.plan.patient_cost, TRAINING)

    def pay_metrics(self, release: str, noise_multiplier: float) -> None:
        """Write down what the noised metrics of one model cost, unless they are paid.

        Raises:
            RefusalError: they are over a cap of the site.
            LedgerError: the ledger cannot be used or written.
        """
        self._pay(release, gaussian_release(noise_multiplier), METRICS)

    def pay_profile(self, release: str, noise_multiplier: float) -> None:
        """Write down what the profile of the images costs, unless it is paid.

        noise_multiplier: 0 for an exact one, which no epsilon bounds.

        Raises:
            RefusalError: it is over a cap of the site.
            LedgerError: the ledger cannot be used or written.
        """
        if noise_multiplier:
            self._pay(release, gaussian_release(noise_multiplier), PROFILE)
        else:
            self.ledger.charge(release, self.digest, unprotected_release(), PROFILE)

    def pay_own_models(self, release: str) -> None:
        """Write down that metrics of models leave that were trained without privacy.

        Raises:
            LedgerError: the ledger cannot be used or written.
        """
        self.ledger.charge(release, self.digest, unprotected_release(), OWN_MODELS)

    def spent(self) -> PrivacySpent | None:
        """Return what the study has spent of its training patients; None if none trained here.

        What left without privacy (own models' metrics) is not in the study's epsilon, which it
        would make infinite; it is in that of the patients' life.
        """
        if self.plan is None:
            return None
        charges = [c for c in self._charges(self.digest) if c.noise_multiplier > 0]
        rounds = sum(charge.purpose == TRAINING for charge in charges)
        image = self.plan.image_cost
        life = self._of_life(self._charges(None), [])
        return PrivacySpent(
            unit="patient",
            epsilon=epsilon_of_charges(charges, self.delta),
            epsilon_image=epsilon_of([replace(image, steps=image.steps * rounds)], self.delta),
            epsilon_life=life if math.isfinite(life) else None,
            delta=self.delta,
            noise_multiplier=self.plan.patient_cost.noise_multiplier,
            sample_rate=self.plan.patient_cost.sample_rate,
            steps=sum(charge.steps for charge in charges if charge.purpose == TRAINING),
        )

    def _pay(self, release: str, cost: PrivateSteps, purpose: str) -> None:
        charges = self._charges(None)
        if release not in {charge.release for charge in charges}:
            self._check_target(charges, cost, purpose)
            self._check(charges, [cost])
        self.ledger.charge(release, self.digest, cost, purpose)

    def _of_life(self, charges: Sequence[Charge], more: Sequence[PrivateSteps]) -> float:
        """Return the epsilon of all that the data set's patients have spent.

        By Renyi moments, which also hold where one study was chosen after another's results; and
        at a delta for all patients of the ledger, so that a study cannot choose it.
        """
        delta = min(self.delta, 1 / (2 * len(self.ledger.chain().patients)))
        return epsilons_of([*steps_of(list(charges)), *more], delta).rdp

    def _charges(self, study: str | None) -> list[Charge]:
        charges = self.ledger.chain().charges.values()
        return [charge for charge in charges if study in (None, charge.study)]

    def _check_target(self, charges: Sequence[Charge], cost: PrivateSteps, purpose: str) -> None:
        target = self.study.privacy.target_epsilon
        if target is None or purpose != TRAINING:
            return
        # Of the training alone, which the noise was found for. Metrics are of other patients, and a
        # profile comes on top: what is told as spent has it.
        own = [c for c in charges if c.study == self.digest and c.purpose == TRAINING]
        after = epsilon_of([*steps_of(own), cost], self.delta)
        if after > target:
            raise RefusalError(
                "privacy",
                f"another round would bring the epsilon of this study to {after:.2f}, over its own "
                f"privacy.target_epsilon={target:g}; the study is over at this site",
            )

    def _check(self, charges: Sequence[Charge], more: Sequence[PrivateSteps]) -> None:
        if self.unprotected:
            # No cap holds for the training; it still holds for the numbers, of other patients.
            charges = [charge for charge in charges if charge.noise_multiplier > 0]
        own = [charge for charge in charges if charge.study == self.digest]
        least = self.policy.privacy.least_noise_multiplier
        noise = least if self.plan is None else self.plan.patient_cost.noise_multiplier
        spending = Spending(
            noise_multiplier=noise,
            delta=self.delta,
            epsilon_study=epsilon_of([*steps_of(own), *more], self.delta),
            epsilon_life=self._of_life(charges, more),
        )
        check_spending(self.policy, self.patients, spending)
