"""The strongest auditor that we can be: all is known but which canaries are in, and who is drawn.

DP-SGD promises its epsilon against whoever sees every step's gradient, knows all the data, and has
put patients of his own choice among them. That auditor is this file: canaries that are hard to
mistake, and the odds that each is in. Legend of shapes: M canaries, O other draws, P parameters.
"""

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from client.cohort import Samples
from client.privacy.dp_sgd import PrivatePlan, units_of
from client.privacy.engine.attach import Engine
from client.privacy.engine.tape import STABILITY
from client.training import GradientSource
from common.schema import SettingsError
from common.study import Study
from common.tasks.registry import build_task

MOST_SPOTS = 5
SPOT_SHARE = 16
"""A spot's side is the image's over this."""
BRIGHTNESS = 20.0
"""Standard deviation of a spot's voxels; an image has 1."""
MOST_OTHERS = 1024
"""Draws of the site's own patients that the auditor follows in a step, at most, evenly chosen."""
ROUNDING = 1e-10
"""Part of the largest eigenvalue below which a direction counts as rounding."""
LEAST_NOISE = 1e-3
"""Of the largest norm of a gradient: the auditor never believes in less noise."""
TOO_LONG = 2.0
"""A sum so many times longer than expected is taken for one of gradients that were not clipped."""
MOST_BYTES = 4 * 2**30
"""Of the gradients of all canaries and draws at once."""


def canaries_like(samples: Samples, count: int, classes: int, draws: torch.Generator) -> Samples:
    """Return so many patients of one image each: a few bright spots in the dark, mislabelled.

    Images are alike in nothing but the dark, so that each has a gradient of its own; labels are
    drawn by chance, so that nothing learned makes it small. samples: the site's own, for the form.
    classes: of the task, the background of a segmentation included.
    """
    shape = samples.images.shape[1:]
    side = [max(1, size // SPOT_SHARE) for size in shape[1:]]
    images = torch.zeros(count, *shape)
    for image in images:
        for _ in range(int(torch.randint(1, MOST_SPOTS + 1, (1,), generator=draws))):
            corner = [
                int(torch.randint(size - length + 1, (1,), generator=draws))
                for size, length in zip(shape[1:], side, strict=True)
            ]
            where = [slice(a, a + length) for a, length in zip(corner, side, strict=True)]
            spot = torch.randn(shape[0], *side, generator=draws)
            image[(slice(None), *where)] = BRIGHTNESS * spot
    if samples.targets.ndim == 1:
        targets = torch.randint(classes, (count,), generator=draws)
    elif samples.targets.ndim == 2:
        targets = torch.randint(2, (count, classes), generator=draws)
    else:
        drawn = torch.randint(1, classes, images[:, :1].shape, generator=draws)
        targets = drawn * (images[:, :1] > 0)
    return Samples(
        images=images,
        targets=targets,
        patients=tuple(f"canary-{number:06d}" for number in range(count)),
        volumes=tuple(range(count)),
        spacing_mm=samples.spacing_mm[:1] * count,
    )


def with_canaries(samples: Samples, canaries: Samples, present: Sequence[bool]) -> Samples:
    """Return the site's samples and the canaries that are present, as one cohort."""
    chosen = [number for number, there in enumerate(present) if there]
    first = max(samples.volumes) + 1
    return replace(
        samples,
        images=torch.cat([samples.images, canaries.images[chosen]]),
        targets=torch.cat([samples.targets, canaries.targets[chosen]]),
        patients=samples.patients + tuple(canaries.patients[number] for number in chosen),
        volumes=samples.volumes + tuple(first + number for number in range(len(chosen))),
        spacing_mm=samples.spacing_mm + tuple(canaries.spacing_mm[number] for number in chosen),
    )


class Auditor:
    """A gradient source that hands on another's gradients, and learns from what it sees."""

    def __init__(
        self, study: Study, plan: PrivatePlan, samples: Samples, canaries: Samples, model: nn.Module
    ) -> None:
        """plan, study: as claimed. samples: the site's own patients, whom the auditor knows too.

        Raises:
            SettingsError: the gradients do not fit into memory.
        """
        self.model = model
        self.log_odds = torch.zeros(len(canaries.images), dtype=torch.float64)
        """Of each canary, to be in rather than out: the score."""
        self.noise_square = 0.0
        """Squared noise that was seen where no gradient points, over the claimed variance ..."""
        self.noise_places = 0
        """... which is chi-squared with so many degrees of freedom."""
        self._study, self._plan = study, plan
        self._samples, self._canaries = samples, canaries
        self._loss = build_task(study.task).loss
        self._twin = copy.deepcopy(model).eval()
        self._engine = Engine(self._twin)
        self._others, self._chance = _draws_of(samples, study, plan)
        rows = len(canaries.images) + len(self._others)
        needed = 8 * rows * sum(p.numel() for p in model.parameters() if p.requires_grad)
        if needed > MOST_BYTES:
            raise SettingsError(
                f"audit.canaries={len(canaries.images)}: their gradients and those of the patients "
                f"take {needed / 2**30:.0f} GB (most: {MOST_BYTES / 2**30:.0f}); audit a smaller "
                "model, or take fewer canaries"
            )

    def watching(self, source: GradientSource, units_a_step: float) -> GradientSource:
        """Return the source of a round, watched. units_a_step: what it divides its sums by."""
        return _Watched(source, self, units_a_step)

    def see(self, noised_P: Tensor) -> None:
        """Learn from the noised sum of the clipped gradients of one step, before the step."""
        self._twin.load_state_dict(self.model.state_dict())
        alone = [[number] for number in range(len(self._canaries.images))]
        canary_MP = self._clipped(self._canaries, alone)
        other_OP = self._clipped(self._samples, self._others)
        clip, noised_P = self._study.privacy.max_grad_norm, noised_P.double()
        noise = self._plan.noise_multiplier * clip
        square, places = off_the_rows(noised_P, torch.cat([canary_MP, other_OP]))
        self.noise_square += square / noise**2
        self.noise_places += places
        rates = self._plan.sample_rate, self._chance
        # What was claimed is measured where it can be, not believed: a fault then shows in full.
        longer = times_longer(noised_P, canary_MP, other_OP, *rates, noise)
        longer = longer if longer > TOO_LONG else 1.0
        seen = max(math.sqrt(square / places) if places else noise, LEAST_NOISE * clip)
        self.log_odds += log_odds(noised_P / longer, canary_MP, other_OP, *rates, seen / longer)

    def _clipped(self, samples: Samples, groups: Sequence[Sequence[int]]) -> Tensor:
        """Return the clipped gradient of each group of images, [groups, P], float64."""
        clip, physical = self._study.privacy.max_grad_norm, self._study.privacy.physical_batch_size
        parameters = [p for p in self._twin.parameters() if p.requires_grad]
        most = max(1, physical // max(len(group) for group in groups))
        found = []
        for at in range(0, len(groups), most):
            some = groups[at : at + most]
            lengths = [len(group) for group in some]
            indices = [image for group in some for image in group]
            with self._engine.recording(lengths) as tape:
                outputs = self._twin(samples.images[indices])
                self._loss(outputs, samples.targets[indices]).backward()  # type: ignore[no-untyped-call]
            each = [tape.gradients(p).detach().flatten(1) for p in parameters]
            rows = torch.cat(each, 1).double()
            rows *= len(indices) / torch.tensor(lengths)[:, None]
            found.append(rows * (clip / (rows.norm(dim=1, keepdim=True) + STABILITY)).clamp(max=1))
        return torch.cat(found)


class _Watched:
    def __init__(self, source: GradientSource, auditor: Auditor, divisor: float) -> None:
        self.model = source.model
        self._source, self._auditor, self._divisor = source, auditor, divisor

    def batches(self) -> Iterator[Tensor]:
        return self._source.batches()

    def backward(self, indices: Tensor, loss_of: Callable[[Tensor], Tensor]) -> Tensor | None:
        loss = self._source.backward(indices, loss_of)
        noised = [p.grad.flatten() for p in self.model.parameters() if p.grad is not None]
        self._auditor.see(torch.cat(noised) * self._divisor)
        return loss

    def close(self) -> None:
        self._source.close()


def log_odds(
    noised_P: Tensor, canary_MP: Tensor, other_OP: Tensor, rate: float, chance: float, noise: float
) -> Tensor:
    """Return what one step tells about each canary: log P(seen | in) - log P(seen | out), [M].

    noised_P: the sum of the clipped gradients drawn, and noise of this standard deviation.
    rate: chance of a canary that is in to be drawn. chance: of each other draw.

    All other canaries and draws count as Gaussian, with their mean and covariance, so the best
    score is a whitened inner product with the canary's own gradient; of a Poisson draw it is a
    mixture of two shifts (the optimal test, as in Nasr et al., USENIX Security 2023, Sec. 4, with
    the inner products of Steinke et al., NeurIPS 2023, Sec. 6, whitened by Woodbury's identity).
    """
    count, half = len(canary_MP), rate / 2
    rows = torch.cat([canary_MP, other_OP])
    spread = torch.cat(
        [rows.new_full((count,), half * (1 - half)), rows.new_full((len(other_OP),), chance)]
    )
    rest_P = noised_P - half * canary_MP.sum(0) - chance * other_OP.sum(0)
    gram = rows @ rows.T
    inner = noise**2 * torch.eye(len(rows)).to(gram) + gram * spread
    solved = torch.linalg.solve(inner, torch.cat([(rows @ rest_P)[:, None], gram[:, :count]], 1))
    matched, power = solved[:count, 0], solved[:count, 1:].diagonal()
    # Both hold the canary's own part of the covariance; Sherman and Morrison take it out.
    own = (1 - half * (1 - half) * power).clamp(min=1e-12)
    power = (power / own).clamp(min=0)
    shift = matched / own + half * power - power / 2
    absent = math.log1p(-rate) if rate < 1 else -math.inf
    return torch.logaddexp(torch.full_like(shift, absent), math.log(rate) + shift)


def times_longer(
    noised_P: Tensor, canary_MP: Tensor, other_OP: Tensor, rate: float, chance: float, noise: float
) -> float:
    """Return the length of a step's sum over what its gradients and its noise let expect.

    The arguments are those of log_odds. Far above 1, gradients were not clipped as they should be.
    """
    mean_P = rate / 2 * canary_MP.sum(0) + chance * other_OP.sum(0)
    spread = rate / 2 * canary_MP.square().sum() + chance * other_OP.square().sum()
    expected = mean_P.square().sum() + spread + noise**2 * len(noised_P)
    return float((noised_P.square().sum() / expected).sqrt())


def off_the_rows(vector_P: Tensor, rows: Tensor) -> tuple[float, int]:
    """Return the squared length of the part that no row points to, and its dimensions; 0 for none.

    rows: [R, P].
    """
    values, vectors = torch.linalg.eigh(rows @ rows.T)
    kept = values > ROUNDING * values.max()
    spare = len(vector_P) - int(kept.sum())
    if spare <= 0:
        return 0.0, 0
    axes = (vectors[:, kept] / values[kept].sqrt()).T @ rows
    rest = vector_P - axes.T @ (axes @ vector_P)
    return float(rest.square().sum()), spare


def _draws_of(samples: Samples, study: Study, plan: PrivatePlan) -> tuple[list[list[int]], float]:
    """Return what each patient of the site may bring to a step, and each one's chance.

    A patient of k draws brings each with a k-th of the sample rate; of too many draws some stand
    for all.
    """
    units = units_of(samples, study.privacy)
    draws = []
    for images in units:
        each = min(study.privacy.images_per_patient or len(images), len(images))
        draws += [images[at : at + each] for at in range(0, len(images), each)]
    chance = plan.sample_rate * len(units) / len(draws)
    step = math.ceil(len(draws) / MOST_OTHERS)
    return draws[::step], min(1.0, chance * step)
