"""DP-SGD with the patient as the unit (Abadi et al., CCS 2016, Algorithm 1).

Each step draws patients by Poisson sampling and takes some or all images of each drawn patient. The
gradient of a patient is the mean over those images, clipped: a patient moves the sum by at most
max_grad_norm, whatever the number of its images, and the noise for one such contribution protects
the whole patient. The sum is divided by the expected number of patients. Where a study says so,
single images are drawn and protected instead.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import torch
from opacus.optimizers.optimizer_fast_gradient_clipping import DPOptimizerFastGradientClipping
from opacus.utils.uniform_sampler import UniformWithReplacementSampler
from torch import Tensor, nn

from client.cohort import Samples
from client.oversampling import factors_of, kept_of_units
from client.privacy.engine.attach import Engine
from common.accounting import PrivateSteps, noise_for
from common.contract import RefusalError
from common.study import PrivacyConfig, Study


@dataclass(frozen=True, kw_only=True)
class PrivatePlan:
    """What the study and the cohort make of DP-SGD at this site, the same in every round."""

    delta: float
    sample_rate: float
    """Chance of a unit to be in a step; where some are drawn more often than others, of those."""
    units_a_step: float
    """Units that a step would have if all were drawn alike; public, where the classes are not."""
    steps_a_round: int
    noise_multiplier: float
    """Standard deviation of the noise over the largest norm of one unit's gradient."""
    images_a_patient: int = 1
    """Most images that a patient has; where images are drawn, a patient is in a step so often."""
    unit: str = "patient"

    @property
    def patient_cost(self) -> PrivateSteps:
        """The charge of one round to a patient.

        Where images are drawn, k of one patient are in a step with the chance 1 - (1 - q)^k at
        most, and move the sum by k clips at most: a Gaussian of k times the shift dominates the
        mixture of fewer (Choquette-Choo et al., ICLR 2024, Lemma 4.5).
        """
        images = 1 if self.unit == "patient" else self.images_a_patient
        return PrivateSteps(
            noise_multiplier=self.noise_multiplier / images,
            sample_rate=_any_of(images, self.sample_rate),
            steps=self.steps_a_round,
        )

    @property
    def image_cost(self) -> PrivateSteps:
        """The charge of one round to an image, of a patient who keeps the other images or has none.

        Where patients are drawn, another image may take its place: the gradient then moves by up to
        two clips (the chord of the ball), so an image of a patient with several is bounded as one
        of twice the sensitivity. It is no less private than what this says.
        """
        twice = self.unit == "patient" and self.images_a_patient > 1
        return PrivateSteps(
            noise_multiplier=self.noise_multiplier / (2 if twice else 1),
            sample_rate=self.sample_rate,
            steps=self.steps_a_round,
        )


def private_plan(study: Study, images_each: Sequence[int]) -> PrivatePlan:
    """Return the plan of the whole study for training patients of so many images each.

    An epoch is ceil(units / batch size) steps. A target epsilon holds for a patient.

    Raises:
        RefusalError: a delta that is too large for the cohort, or a target that no noise meets.
    """
    privacy, training = study.privacy, study.training
    patients = len(images_each)
    delta = 1 / (2 * patients) if privacy.delta is None else privacy.delta
    if delta > 1 / patients:
        raise RefusalError(
            "privacy",
            f"privacy.delta={delta:g} is more than 1/patients={1 / patients:.2g} of this site; "
            "give a smaller delta, or null for 1/(2 x patients)",
        )
    by_patient = privacy.unit == "patient"
    units = patients if by_patient else sum(images_each)
    share = min(1.0, training.batch_size / units)
    sample_rate = min(1.0, share * training.most_oversampled)
    steps = training.local_steps or training.local_epochs * math.ceil(units / training.batch_size)
    noise = privacy.noise_multiplier
    if noise is None:
        at_once = 1 if by_patient else max(images_each)
        noise = at_once * _least_noise(study, delta, _any_of(at_once, sample_rate), steps)
    return PrivatePlan(
        delta=delta,
        sample_rate=sample_rate,
        units_a_step=share * units,
        steps_a_round=steps,
        noise_multiplier=noise,
        images_a_patient=max(images_each),
        unit=privacy.unit,
    )


def _any_of(count: int, chance: float) -> float:
    return chance if count == 1 else 1 - (1 - chance) ** count


def _least_noise(study: Study, delta: float, sample_rate: float, steps_a_round: int) -> float:
    target = study.privacy.target_epsilon
    assert target is not None  # PrivacyConfig gives exactly one of the two
    try:
        return noise_for(target, delta, sample_rate, steps_a_round * study.rounds)
    except ValueError as error:
        raise RefusalError("privacy", str(error)) from error


class PrivateGradient:
    """Puts a clipped, noised and scaled gradient into every p.grad, a Poisson draw at a time."""

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        plan: PrivatePlan,
        study: Study,
        samples: Samples,
        draws: torch.Generator,
        noise: torch.Generator,
        physical_batch: int,
    ) -> None:
        """physical_batch: images in memory at once; a single unit's may be more."""
        self.model = model
        self._engine = Engine(model)
        self._privacy = study.privacy
        self._plan = plan
        self._draws = draws
        self._physical = physical_batch
        self._units = units_of(samples, study.privacy)
        share = plan.units_a_step / len(self._units)
        factor_N = factors_of(samples, study)
        self._kept_U = kept_of_units(factor_N, self._units, share, plan.sample_rate)
        self._unit_of = {image: unit for unit, images in enumerate(self._units) for image in images}
        self._optimizer = DPOptimizerFastGradientClipping(
            optimizer,
            noise_multiplier=plan.noise_multiplier,
            max_grad_norm=study.privacy.max_grad_norm,
            expected_batch_size=plan.units_a_step,
            generator=noise,
        )

    def batches(self) -> Iterator[Tensor]:
        """Yield the indices of the images of each step, those of a unit next to each other."""
        drawn = UniformWithReplacementSampler(
            num_samples=len(self._units),
            sample_rate=self._plan.sample_rate,
            generator=self._draws,
            steps=self._plan.steps_a_round,
        )
        for units in drawn:
            chosen = [
                image for unit in self._kept(units) for image in self._some_of(self._units[unit])
            ]
            yield torch.tensor(chosen, dtype=torch.long)

    def backward(self, indices: Tensor, loss_of: Callable[[Tensor], Tensor]) -> Tensor | None:
        """Leave the private gradient of the step in p.grad.

        The loss is not returned: it depends on the patients drawn, and no noise covers it.
        """
        chunks = self._chunks(indices.tolist())
        for number, lengths in enumerate(chunks, start=1):
            self._optimizer.zero_grad()
            chunk, indices = indices[: sum(lengths)], indices[sum(lengths) :]
            sums: dict[nn.Parameter, Tensor] = {}
            if lengths:
                with self._engine.recording(lengths) as tape:
                    loss_of(chunk).backward()  # type: ignore[no-untyped-call]
                sums = tape.clipped_sums(self._privacy.max_grad_norm)
            for parameter in self.model.parameters():
                if parameter.requires_grad:
                    found = sums.get(parameter)
                    parameter.grad = torch.zeros_like(parameter) if found is None else found
            self._optimizer.signal_skip_step(do_skip=number < len(chunks))
            self._optimizer.pre_step()
        return None

    def close(self) -> None:
        """Give the network's layers back."""
        self._engine.close()

    def _kept(self, units: Sequence[int]) -> Sequence[int]:
        if self._kept_U is None:
            return units
        chances = torch.rand(len(units), generator=self._draws)
        return [u for u, x in zip(units, chances, strict=True) if x < self._kept_U[u]]

    def _some_of(self, images: list[int]) -> list[int]:
        most = self._privacy.images_per_patient or len(images)
        if len(images) > most:
            order = torch.randperm(len(images), generator=self._draws)[:most]
            images = [images[int(place)] for place in order]
        return [image for image in images for _ in range(self._privacy.augmentations)]

    def _chunks(self, indices: list[int]) -> list[list[int]]:
        """Return the images of each unit, in chunks of whole units; one empty chunk for nobody."""
        chunks: list[list[int]] = [[]]
        for _, unit in groupby(indices, key=self._unit_of.__getitem__):
            length = len(list(unit))
            if chunks[-1] and sum(chunks[-1]) + length > self._physical:
                chunks.append([])
            chunks[-1].append(length)
        return chunks


def units_of(samples: Samples, privacy: PrivacyConfig) -> list[list[int]]:
    """Return the images of each unit that is drawn: of each patient, or each image alone."""
    if privacy.unit == "patient":
        return list(samples.patient_indices().values())
    return [[image] for image in range(len(samples.patients))]
