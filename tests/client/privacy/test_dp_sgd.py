from collections import Counter
from collections.abc import Sequence
from itertools import groupby

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from client.privacy.dp_sgd import PrivateGradient, PrivatePlan, private_plan
from common.accounting import PrivateSteps, epsilon_of
from common.contract import RefusalError
from common.models.registry import build_model
from common.study import Study
from tests.builders import PICTURES, PRIVATE, samples_of, study_from

CLIP = 0.5
STUDY = study_from(*PICTURES, *PRIVATE, f"privacy.max_grad_norm={CLIP}")
SLICES_EACH = st.lists(st.integers(1, 40), min_size=1, max_size=8)


class Source:
    """A PrivateGradient on a tiny network, with the loss of its samples."""

    def __init__(
        self,
        images_each: Sequence[int],
        *,
        noise: float = 0.0,
        rate: float = 1.0,
        steps: int = 1,
        study: Study = STUDY,
        physical: int = 64,
    ) -> None:
        self.samples = samples_of(images_each)
        self.network = build_model(study.model, 0)
        self.patient = study.privacy.unit == "patient"
        self.expected = rate * (len(images_each) if self.patient else sum(images_each))
        plan = PrivatePlan(
            delta=1e-3,
            sample_rate=rate,
            units_a_step=self.expected,
            steps_a_round=steps,
            noise_multiplier=noise,
            images_a_patient=max(images_each),
            unit=study.privacy.unit,
        )
        self.gradient = PrivateGradient(
            self.network,
            torch.optim.SGD(self.network.parameters(), 1.0),
            plan,
            study,
            self.samples,
            torch.Generator().manual_seed(1),
            torch.Generator().manual_seed(2),
            physical,
        )

    def loss(self, indices: Tensor) -> Tensor:
        # Eightfold logits make gradients of very different norms: some are clipped, some not.
        logits = self.gradient.model(self.samples.images[indices])
        return F.cross_entropy(8 * logits, self.samples.targets[indices])

    def sum_over(self, indices: Tensor) -> Tensor:
        """Return what the step adds up before it is scaled: the clipped gradients, one vector."""
        self.gradient.backward(indices, self.loss)
        gradients = [p.grad.flatten() for p in self.network.parameters() if p.grad is not None]
        return torch.cat(gradients) * self.expected


def clipped_by_hand(source: Source, indices: Tensor) -> Tensor:
    """Return the sum of the units' clipped gradients, a backward pass a unit."""
    model = build_model(STUDY.model, 0)
    total = torch.zeros(sum(p.numel() for p in model.parameters()))
    patients = source.samples.patients
    by_unit = groupby(indices.tolist(), key=lambda i: patients[i] if source.patient else i)
    for _, images in ((unit, list(images)) for unit, images in by_unit):
        logits = model(source.samples.images[images])
        loss = F.cross_entropy(8 * logits, source.samples.targets[images])
        gradient = torch.cat([g.flatten() for g in torch.autograd.grad(loss, model.parameters())])
        total += gradient * min(1.0, CLIP / float(gradient.norm()))
    return total


@settings(deadline=None, max_examples=30)
@given(images_each=SLICES_EACH, most=st.sampled_from(["1", "3", "null"]), data=st.data())
def test_one_patient_moves_the_sum_by_at_most_the_clip_however_many_slices(
    images_each: list[int], most: str, data: st.DataObject
) -> None:
    study = study_from(
        *PICTURES,
        *PRIVATE,
        f"privacy.max_grad_norm={CLIP}",
        f"privacy.images_per_patient={most}",
        f"model.channels=[{data.draw(st.sampled_from([2, 4, 6]))},8]",
    )
    source = Source(images_each, study=study)
    (indices,) = source.gradient.batches()
    patients = [source.samples.patients[index] for index in indices]
    assert set(patients) == set(source.samples.patients)
    assert len(indices) == sum(n if most == "null" else min(n, int(most)) for n in images_each)
    out = data.draw(st.sampled_from(patients))
    others = indices[torch.tensor([patient != out for patient in patients])]
    influence = source.sum_over(indices) - source.sum_over(others)
    assert float(influence.norm()) <= CLIP * (1 + 1e-4)


@pytest.mark.parametrize("unit", ["patient", "image"])
@pytest.mark.parametrize("most", ["1", "2", "null"])
@pytest.mark.parametrize("augmentations", [1, 2])
def test_the_noiseless_sum_is_that_of_gradients_clipped_one_by_one(
    unit: str, most: str, augmentations: int
) -> None:
    study = study_from(
        *PICTURES,
        *PRIVATE,
        f"privacy.max_grad_norm={CLIP}",
        f"privacy.unit={unit}",
        f"privacy.images_per_patient={most}",
        f"privacy.augmentations={augmentations}",
    )
    source = Source([3, 1, 7, 2, 1], study=study)
    (indices,) = source.gradient.batches()
    expected = clipped_by_hand(source, indices)
    torch.testing.assert_close(source.sum_over(indices), expected, rtol=1e-4, atol=1e-6)


def test_where_images_are_drawn_a_patient_of_many_pays_for_all() -> None:
    study = study_from(*PICTURES, *PRIVATE, "privacy.unit=image", "training.batch_size=4")
    plan = private_plan(study, [1, 4, 15])
    assert plan.sample_rate == 4 / 20
    assert plan.image_cost == PrivateSteps(noise_multiplier=1.0, sample_rate=0.2, steps=5)
    worst = PrivateSteps(noise_multiplier=1 / 15, sample_rate=1 - 0.8**15, steps=5)
    assert plan.patient_cost == worst


def test_an_image_that_another_can_replace_is_bounded_by_two_clips() -> None:
    alone, several = (private_plan(STUDY, each) for each in ([1] * 20, [1] * 19 + [2]))
    assert alone.image_cost == alone.patient_cost == several.patient_cost
    assert several.image_cost.noise_multiplier == several.patient_cost.noise_multiplier / 2


def test_a_target_holds_for_the_patient_also_where_images_are_drawn() -> None:
    study = study_from(
        *PICTURES, "privacy.mechanism=dp_sgd", "privacy.target_epsilon=8", "privacy.unit=image"
    )
    plan = private_plan(study, [2] * 20)
    assert 7.5 < epsilon_of([plan.patient_cost] * study.rounds, plan.delta) <= 8
    assert epsilon_of([plan.image_cost] * study.rounds, plan.delta) < 4


@pytest.mark.parametrize("rate", [0.05, 0.4, 1.0])
def test_every_step_draws_each_patient_with_the_stated_rate(rate: float) -> None:
    steps, patients = 3000, 10
    source = Source([1, 40, *[3] * (patients - 2)], rate=rate, steps=steps)
    drawn = [[source.samples.patients[i] for i in batch] for batch in source.gradient.batches()]
    assert len(drawn) == steps
    assert all(len(set(batch)) == len(batch) for batch in drawn)
    counts = Counter(patient for batch in drawn for patient in batch)
    spread = (steps * rate * (1 - rate)) ** 0.5
    for patient in set(source.samples.patients):
        assert counts[patient] == pytest.approx(rate * steps, abs=5 * spread)
    # Poisson sampling: patients come and stay away independently of each other.
    sizes = torch.tensor([float(len(batch)) for batch in drawn])
    assert float(sizes.var()) == pytest.approx(patients * rate * (1 - rate), rel=0.15, abs=1e-9)


def test_a_drawn_patient_brings_any_of_its_images_equally_often() -> None:
    steps = 4000
    source = Source([4], steps=steps)
    counts = Counter(int(batch) for batch in source.gradient.batches())
    spread = (steps * 0.25 * 0.75) ** 0.5
    assert all(counts[i] == pytest.approx(steps / 4, abs=5 * spread) for i in range(4))


def test_an_empty_draw_is_a_step_of_noise_alone() -> None:
    source = Source([1] * 4, noise=2.0, rate=0.5)
    nobody = torch.tensor([], dtype=torch.long)

    def not_asked(_: Tensor) -> Tensor:
        raise AssertionError("there is no image to take a loss of")

    draws = []
    for _ in range(20):
        assert source.gradient.backward(nobody, not_asked) is None
        draws.append(torch.cat([p.grad.flatten() for p in source.network.parameters()]))
    noise = torch.cat(draws)
    assert float(noise.std()) == pytest.approx(2.0 * CLIP / (0.5 * 4), rel=0.05)
    assert float(noise.mean()) == pytest.approx(0.0, abs=0.05)


def test_empty_draws_are_steps_too() -> None:
    source = Source([1, 1], rate=1e-6, steps=5)
    batches = list(source.gradient.batches())
    assert [len(batch) for batch in batches] == [0] * 5
    plan = private_plan(STUDY, [1] * 20)
    assert plan.patient_cost.steps == plan.steps_a_round == 3


@pytest.mark.parametrize("physical", [1, 3, 7])
def test_small_physical_batches_give_the_update_of_one_large_batch(physical: int) -> None:
    one, split = (Source([2] * 7, noise=0.3, steps=3, physical=p) for p in (64, physical))
    for large, parts in zip(one.gradient.batches(), split.gradient.batches(), strict=True):
        assert torch.equal(large, parts)
        torch.testing.assert_close(split.sum_over(parts), one.sum_over(large), rtol=1e-4, atol=1e-6)


def test_no_loss_is_told() -> None:
    source = Source([1, 1])
    assert source.gradient.backward(torch.tensor([0, 1]), source.loss) is None


def test_closing_takes_everything_off_the_network() -> None:
    source = Source([1, 1])
    keys = list(build_model(STUDY.model, 0).state_dict())
    source.gradient.backward(torch.tensor([0, 1]), source.loss)
    source.gradient.close()
    assert list(source.network.state_dict()) == keys
    assert not any("forward" in vars(module) for module in source.network.modules())


@pytest.mark.parametrize("delta", [0.3, 0.051])
def test_a_delta_over_one_by_the_patients_is_refused(delta: float) -> None:
    study = study_from(*PICTURES, *PRIVATE, f"privacy.delta={delta}")
    with pytest.raises(RefusalError, match=r"more than 1/patients=0\.05"):
        private_plan(study, [1] * 20)


def test_without_a_delta_it_is_half_of_one_by_the_patients() -> None:
    assert private_plan(STUDY, [1] * 20).delta == 1 / 40
    assert (
        private_plan(study_from(*PICTURES, *PRIVATE, "privacy.delta=0.05"), [1] * 20).delta == 0.05
    )


@pytest.mark.parametrize(
    ("target", "rounds", "epochs", "patients"), [(8.0, 10, 1, 40), (1.0, 3, 2, 200), (3.0, 1, 1, 5)]
)
def test_the_plan_of_all_rounds_stays_within_the_target(
    target: float, rounds: int, epochs: int, patients: int
) -> None:
    study = study_from(
        *PICTURES,
        "privacy.mechanism=dp_sgd",
        f"privacy.target_epsilon={target}",
        f"rounds={rounds}",
        f"training.local_epochs={epochs}",
    )
    plan = private_plan(study, [3] * patients)
    assert 0.95 * target < epsilon_of([plan.patient_cost] * rounds, plan.delta) <= target


def test_a_target_that_no_noise_meets_is_refused() -> None:
    study = study_from(
        *PICTURES,
        "privacy.mechanism=dp_sgd",
        "privacy.target_epsilon=1e-3",
        "privacy.delta=1e-12",
    )
    with pytest.raises(RefusalError, match="cannot be met"):
        private_plan(study, [1] * 20)


def test_a_cohort_smaller_than_a_batch_is_drawn_whole() -> None:
    plan = private_plan(STUDY, [1] * 3)
    assert plan.sample_rate == 1.0
    assert plan.steps_a_round == 1
