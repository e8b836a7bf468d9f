"""DP-SGD with the patient as the unit (Abadi et al., CCS 2016, Algorithm 1), on Opacus.

Each step draws patients by Poisson sampling and takes one image of each drawn patient. A patient
so adds at most one clipped gradient to a step, whatever the number of its images, and the noise
for one gradient protects the whole patient.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from opacus import GradSampleModule
from opacus.optimizers import DPOptimizer
from opacus.utils.uniform_sampler import UniformWithReplacementSampler
from torch import Tensor, nn

from client.cohort import Samples
from common.accounting import PrivateSteps, noise_for
from common.contract import RefusalError
from common.study import Study


@dataclass(frozen=True, kw_only=True)
class PrivatePlan:
    """What the study and the size of the cohort make of DP-SGD at this site."""

    delta: float
    sample_rate: float
    steps_a_round: int
    noise_multiplier: float

    @property
    def round_cost(self) -> PrivateSteps:
        """The charge of one round."""
        return PrivateSteps(
            noise_multiplier=self.noise_multiplier,
            sample_rate=self.sample_rate,
            steps=self.steps_a_round,
        )


def private_plan(study: Study, patients: int) -> PrivatePlan:
    """Return the plan of the whole study for a cohort of `patients`.

    An epoch is ceil(patients / batch size) steps.

    Raises:
        RefusalError: a delta that is too large for the cohort, or a target that no noise meets.
    """
    privacy, training = study.privacy, study.training
    delta = 1 / (2 * patients) if privacy.delta is None else privacy.delta
    if delta > 1 / patients:
        raise RefusalError(
            "privacy",
            f"privacy.delta={delta:g} is more than 1/patients={1 / patients:.2g} of this site; "
            "give a smaller delta, or null for 1/(2 x patients)",
        )
    sample_rate = min(1.0, training.batch_size / patients)
    per_epoch = math.ceil(patients / training.batch_size)
    steps = training.local_steps or training.local_epochs * per_epoch
    noise = privacy.noise_multiplier
    if noise is None:
        target = privacy.target_epsilon
        assert target is not None  # PrivacyConfig gives exactly one of the two
        try:
            noise = noise_for(target, delta, sample_rate, steps * study.rounds)
        except ValueError as error:
            raise RefusalError("privacy", str(error)) from error
    return PrivatePlan(
        delta=delta, sample_rate=sample_rate, steps_a_round=steps, noise_multiplier=noise
    )


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
    ) -> None:
        self.model = GradSampleModule(model, loss_reduction="mean")
        self._samples = samples
        self._plan = plan
        self._draws = draws
        self._physical = study.privacy.physical_batch_size
        self._images_of = list(samples.patient_indices().values())
        self._optimizer = DPOptimizer(
            optimizer,
            noise_multiplier=plan.noise_multiplier,
            max_grad_norm=study.privacy.max_grad_norm,
            expected_batch_size=plan.sample_rate * len(self._images_of),
            generator=noise,
        )

    def batches(self) -> Iterator[Tensor]:
        """Yield the indices of the images of each step: one of every drawn patient."""
        drawn = UniformWithReplacementSampler(
            num_samples=len(self._images_of),
            sample_rate=self._plan.sample_rate,
            generator=self._draws,
            steps=self._plan.steps_a_round,
        )
        for patients in drawn:
            chosen = [self._one_of(self._images_of[patient]) for patient in patients]
            yield torch.tensor(chosen, dtype=torch.long)

    def backward(self, indices: Tensor, loss_of: Callable[[Tensor], Tensor]) -> float | None:
        """Leave the private gradient of the step in p.grad.

        The loss is not returned: it depends on the patients drawn, and no noise covers it.
        """
        chunks = torch.split(indices, self._physical) if len(indices) else [indices]
        for number, chunk in enumerate(chunks, start=1):
            self._optimizer.zero_grad()
            if len(chunk):
                loss_of(chunk).backward()  # type: ignore[no-untyped-call]
            else:
                self._no_patients()
            self._optimizer.signal_skip_step(do_skip=number < len(chunks))
            self._optimizer.pre_step()
        return None

    def close(self) -> None:
        """Take Opacus's hooks off the network again."""
        self.model.to_standard_module()

    def _one_of(self, images: list[int]) -> int:
        if len(images) == 1:
            return images[0]
        return images[int(torch.randint(len(images), (1,), generator=self._draws))]

    def _no_patients(self) -> None:
        for parameter in self.model.parameters():
            if parameter.requires_grad:
                parameter.grad_sample = parameter.new_zeros((0, *parameter.shape))
