"""Contrastive pre-training: which of many images is this a view of?

Chen, Kornblith, Norouzi and Hinton, SimCLR, ICML 2020. A sample has an image and one view of it as
its channels, and a network answers each of the two. The loss compares the images of a batch, so a
patient's gradient does not exist. Shape suffixes: B images, C channels of an image, S spatial axes,
K numbers of an answer.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from common.tasks.config import LossConfig, TaskConfig
from common.tasks.losses import Loss, loss_of
from common.tasks.task import Bounded, Metric, Sums, Task, check_finite

TEMPERATURE = 0.5
"""Of NT-Xent, as in Chen et al., Sec. 2.2, for networks that are trained long."""
LEAST_AREA = 0.3
"""Share of an image that a view shows at least: less would often miss what a radiograph is for."""
LARGEST_STRETCH = 4 / 3
"""Of a view's sides beside each other, as in Chen et al., App. A."""
CONTRAST, BRIGHTNESS, NOISE = 0.4, 0.4, 0.2
"""A view's contrast is up to so much more or less; its brightness and its noise are of the image's
standard deviation."""
WORST = 2.0
"""A network is called no worse than this."""
_ALIKE = 1e-6
"""Below it answers to all images are the same, as far as float32 tells."""


def nt_xent(config: LossConfig, numbers: int) -> Loss:
    """Return the loss of pairs [B, 2K], mean over the 2B views (Chen et al., Eq. 1, NT-Xent).

    Of each view: -log of exp(cosine with the other of its pair / temperature), over the sum of the
    same with every view but itself. A batch of one pair has nothing to compare: 0.
    """
    del numbers
    temperature = TEMPERATURE if config.temperature is None else config.temperature

    def loss(pairs: Tensor, target: Tensor) -> Tensor:
        del target
        views = torch.cat(directions(pairs).chunk(2, dim=1))
        alike = views @ views.T / temperature
        itself = torch.eye(len(views), dtype=torch.bool, device=views.device)
        other = torch.arange(len(views), device=views.device).roll(len(pairs))
        return F.cross_entropy(alike.masked_fill(itself, -math.inf), other)

    return loss


OF_PAIRS: Mapping[str, Callable[[LossConfig, int], Loss]] = MappingProxyType({"nt_xent": nt_xent})
"""What a contrastive pre-training may learn by."""


def contrastive_metrics() -> dict[str, Metric]:
    """Return the metrics by name."""
    meaning = "distance of an image from a view of it over that of any two, 1 by chance."
    return {"unexplained": Metric(False, "", meaning, high=WORST)}


def build_contrastive(config: TaskConfig) -> Task:
    """Return the task of pairs: an image and a view of it.

    Images are [B, 2C, ...], answers [B, 2K] and targets [B] say nothing. In training both of a pair
    are views, drawn anew in each step. Sums: `place` [K] the mean of a patient's answers, `apart`
    [1] the mean of half the squared distance within a pair, `patients` [1].
    """
    criterion = loss_of(OF_PAIRS, config.loss, config.out_channels)
    return Task(
        config=config,
        metrics=contrastive_metrics(),
        ask=both,
        loss=lambda pairs, target: criterion(pairs.float(), target),
        activate=lambda pairs: directions(pairs.float()),
        measure=measure,
        patient_sums=patient_sums,
        score=score,
        bounded=Bounded(bounded_row, math.sqrt(2), restored),
        vary=two_views,
    )


def both(network: nn.Module, pairs_BCS: Tensor) -> Tensor:
    """Return the network's answers to both of each pair, one after the other: [B, 2K]."""
    first, second = pairs_BCS.chunk(2, dim=1)
    return torch.cat([network(first), network(second)], dim=1)


def directions(pairs: Tensor) -> Tensor:
    """Return each of the two answers [B, K] brought to length 1; one of 0 stays so."""
    return torch.cat([F.normalize(part, dim=1) for part in pairs.chunk(2, dim=1)], dim=1)


def beside_a_view(images_BCS: Tensor, draws: torch.Generator) -> Tensor:
    """Return the images, each with a view of it as further channels."""
    return torch.cat([images_BCS, view(images_BCS, draws)], dim=1)


def two_views(pairs: Tensor, targets: Tensor, draws: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return two new views of the first image of each pair; targets stay."""
    images = pairs.chunk(2, dim=1)[0]
    return torch.cat([view(images, draws), view(images, draws)], dim=1), targets


def view(images_BCS: Tensor, draws: torch.Generator) -> Tensor:
    """Return another look at each image: a part of it, perhaps mirrored, as another device has it.

    A box of 0.3 to 1 of the image, stretched by up to 4/3, anywhere, at the image's size again;
    left-right mirrored by a chance of 1/2; contrast, brightness and noise (CONTRAST, BRIGHTNESS,
    NOISE). A channel of 0, as a sequence that is missing, stays so.
    """
    if not len(images_BCS):
        return images_BCS
    there = (images_BCS != 0).flatten(2).any(2).reshape(*images_BCS.shape[:2], *_ones(images_BCS))
    seen = F.grid_sample(images_BCS, _boxes(images_BCS, draws), align_corners=False)
    spread = images_BCS.flatten(1).std(1, correction=0).reshape(-1, 1, *_ones(images_BCS))
    contrast, brightness, noise = (
        limit * _between(-1.0, 1.0, len(images_BCS), 1, draws).reshape(spread.shape).to(spread)
        for limit in (CONTRAST, BRIGHTNESS, NOISE)
    )
    grain = torch.randn(seen.shape, generator=draws).to(seen)
    return (seen * (1 + contrast) + spread * (brightness + noise * grain)) * there


def _boxes(images_BCS: Tensor, draws: torch.Generator) -> Tensor:
    """Return where each voxel of a view lies in its image, as grid_sample has it."""
    count, dims = len(images_BCS), images_BCS.ndim - 2
    area = _between(LEAST_AREA, 1.0, count, 1, draws)
    stretch = _between(-0.5, 0.5, count, dims, draws) * math.log(LARGEST_STRETCH)
    # Stretched sides have the same product; none is longer than the image's.
    sides = (area ** (1 / dims) * (stretch - stretch.mean(1, keepdim=True)).exp()).clamp(max=1.0)
    centre = _between(-1.0, 1.0, count, dims, draws) * (1 - sides)
    # The first axis is left-right, and affine_grid has it last.
    sides[:, -1] *= torch.where(torch.rand(count, generator=draws) < 0.5, -1.0, 1.0)
    theta = torch.cat([torch.diag_embed(sides), centre[:, :, None]], dim=2).to(images_BCS.device)
    return F.affine_grid(theta, list(images_BCS.shape), align_corners=False)


def _between(low: float, high: float, rows: int, columns: int, draws: torch.Generator) -> Tensor:
    return low + (high - low) * torch.rand(rows, columns, generator=draws)


def _ones(images_BCS: Tensor) -> list[int]:
    return [1] * (images_BCS.ndim - 2)


def measure(probabilities: Tensor, target: Tensor, spacing_mm: Sequence[float]) -> Sums:
    """Return the record of one pair: `place` [K], the mean of both answers, and `apart` [1].

    probabilities: [2K], two answers of length 1, or of 0 where there is none.

    Raises:
        ValueError: a number is not finite.
    """
    del target, spacing_mm
    check_finite(probabilities)
    first, second = probabilities.cpu().double().chunk(2)
    return {
        "place": ((first + second) / 2).numpy(),
        "apart": np.array([1.0 - float(first @ second)]),
    }


def patient_sums(records: Sequence[Sums]) -> Sums:
    """Return the sums of one patient: the means of the patient's images.

    Raises:
        ValueError: no records.
    """
    if not records:
        raise ValueError("a patient without images cannot be scored; leave the patient out")
    means = {name: np.mean([record[name] for record in records], axis=0) for name in records[0]}
    return {**means, "patients": np.ones(1)}


def score(sums: Sums) -> dict[str, float]:
    """Return the metric of the patients that the sums are over.

    Half the squared distance within a pair is `apart`; between answers to any two images it is
    1 - |mean answer|^2 on average. A network that says the same of all images explains nothing.
    """
    patients = float(sums["patients"].sum())
    if not patients:
        return {"unexplained": math.nan}
    of_any_two = 1.0 - float(np.square(sums["place"] / patients).sum())
    within = float(sums["apart"].sum()) / patients
    share = within / of_any_two if of_any_two > _ALIKE else 1.0
    return {"unexplained": min(max(share, 0.0), WORST)}


def bounded_row(sums: Sums) -> Sums:
    """Return a patient's halves: a place of length 1/2 at most, and a distance of 0 to 1."""
    place = np.clip(np.nan_to_num(sums["place"]), -1.0, 1.0)
    return {
        "place": place / (2 * max(1.0, float(np.linalg.norm(place)))),
        "apart": np.clip(np.nan_to_num(sums["apart"]) / 2, 0.0, 1.0),
    }


def restored(sums: Sums, patients: int) -> Sums:
    """Return totals with noise as those of so many patients."""
    place = 2 * sums["place"]
    longest = max(1.0, float(np.linalg.norm(place)) / patients)
    apart = 2 * np.clip(sums["apart"], 0.0, patients)
    return {"place": place / longest, "apart": apart, "patients": np.array([float(patients)])}
