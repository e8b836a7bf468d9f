"""How a site's images look, as one bounded vector a patient: a row of its profile.

What the parts are is in common/profile.py. Shape suffixes: N images, C channels, F features.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd

from client.cohort import Samples
from client.evaluation import BATCH
from client.privacy.statistics import noised
from client.row_images import Acquired
from common.contract import Profile
from common.fourier import low_amplitudes
from common.profile import (
    ACQUISITION,
    AMPLITUDE_LIMIT,
    AMPLITUDES,
    APPEARANCE,
    AXES,
    BINS,
    BLOCK_LIMIT,
    BLOCKS,
    FEATURE_NUMBERS,
    FEATURES,
    FOREGROUND_EDGES,
    INTENSITY,
    MOMENTS,
    RANGES,
    STRATA,
    noise_std,
    sizes_of,
    strata_of,
)
from common.seeding import seed
from common.study import Study
from common.tasks.unlabelled import without_labels

Row = Mapping[str, NDArray[np.float64]]
"""A patient's parts, each of length 1 at most."""
FEATURE_PLACES = 4
"""Blocks of the features' map along each axis."""
LAGS, SMALLEST_DIFFERENCE = (1, 2, 4, 8), 1e-3
LOG2_SPACING, LOG2_SIZE = 8.0, 16.0
"""Voxels of 2^8 mm and 2^16 of them are the largest that are told apart."""


def profile_of(rows: Sequence[Row], noise_multiplier: float, noise: torch.Generator) -> Profile:
    """Return the mean of the patients' rows with Gaussian noise (Dwork and Roth, 2014, App. A).

    It costs common.accounting.gaussian_release(noise_multiplier). noise: secret, and started anew
    for each release.
    """
    means = {name: np.mean([row[name] for row in rows], axis=0) for name in rows[0]}
    std = noise_std(noise_multiplier, len(means), len(rows))
    told = noised(means, std, noise) if std else means
    return Profile(
        patients=len(rows),
        noise_std=std,
        parts={name: values.tolist() for name, values in sorted(told.items())},
    )


def rows_of(
    model: nn.Module,
    sides: Sequence[Samples],
    study: Study,
    device: torch.device,
    on_batch: Callable[[], None] = lambda: None,
) -> list[Row]:
    """Return each patient's row, sorted by patient; patients are of one side alone.

    on_batch: called after each batch of images; it may raise.
    """
    rows: dict[str, Row] = {}
    for samples in sides:
        if not len(samples.images):
            continue
        features_NF = _features(model, samples.images, study, device, on_batch)
        for patient, indices in samples.patient_indices().items():
            rows[patient] = _row(samples, indices, features_NF[indices], study)
    return [rows[patient] for patient in sorted(rows)]


def looks_of(sides: Sequence[Samples], study: Study) -> dict[str, NDArray[np.float64]]:
    """Return one vector a patient that needs no model: intensities, coarse blocks, texture.

    Nothing bounds it, and it stays at the site.
    """
    found = {}
    for samples in sides:
        for patient, indices in samples.patient_indices().items():
            images = samples.images[indices][:, : study.data.channels]
            parts = (_intensity(images, study), appearance_of(images, study), _texture(images))
            found[patient] = np.concatenate(parts)
    return found


def _texture(images: Tensor) -> NDArray[np.float64]:
    """Return how much voxels differ at several distances along each axis, as logarithms.

    Noise and sharpness of a scanner show here, and neither in blocks nor in histograms.
    """
    axes = range(2, images.ndim)
    away = [
        float((images.narrow(axis, lag, kept) - images.narrow(axis, 0, kept)).abs().mean())
        for axis in axes
        for lag in LAGS
        if (kept := images.shape[axis] - lag) > 0
    ]
    return np.log(np.asarray(away) + SMALLEST_DIFFERENCE)


def _row(samples: Samples, indices: list[int], features_NF: Tensor, study: Study) -> Row:
    images, targets = samples.images[indices], samples.targets[indices]
    images = images[:, : study.data.channels]
    strata = _strata(targets, study)
    place = place_of(features_NF)
    with_one = np.concatenate([[1.0], place])
    acquired = [samples.acquired[index] for index in indices]
    return {
        INTENSITY: _intensity(images, study),
        APPEARANCE: appearance_of(images, study),
        ACQUISITION: np.mean([_acquisition(one) for one in acquired], axis=0),
        STRATA: strata,
        FEATURES: np.outer(strata, place).ravel(),
        MOMENTS: np.outer(with_one, with_one).ravel() / 2,
        **({AMPLITUDES: _amplitudes(images)} if AMPLITUDES in sizes_of(study) else {}),
    }


def _intensity(images: Tensor, study: Study) -> NDArray[np.float64]:
    low, high = RANGES[study.data.normalise]
    inside = images.double().nan_to_num(low, high, low).clamp(low, high)
    counts = torch.histc(inside, BINS, low, high)
    return np.asarray((counts / counts.sum()).numpy(), dtype=np.float64)


def appearance_of(images: Tensor, study: Study) -> NDArray[np.float64]:
    """Return a patient's images [N, C, ...] in coarse blocks, as one vector of length 1 at most."""
    dims = study.data.spatial_dims
    pool: Any = F.adaptive_avg_pool2d if dims == 2 else F.adaptive_avg_pool3d
    blocks = pool(images.double(), BLOCKS[dims]).mean((0, 1)).flatten().numpy()
    return _cut(blocks / (BLOCK_LIMIT * math.sqrt(blocks.size)))


def _amplitudes(images: Tensor) -> NDArray[np.float64]:
    finite = images.double().nan_to_num(0.0, 0.0, 0.0)
    return _cut(low_amplitudes(finite).mean((0, 1)).double().numpy() / AMPLITUDE_LIMIT)


def _acquisition(acquired: Acquired) -> NDArray[np.float64]:
    """Return log2 of voxel size and matrix, at 1 at most over all of them."""
    numbers = np.zeros(2 * AXES)
    spacing = np.log2(np.asarray(acquired.spacing_mm[:AXES])) / LOG2_SPACING
    size = np.log2(np.asarray(acquired.size[:AXES], dtype=np.float64)) / LOG2_SIZE
    numbers[: len(spacing)] = spacing
    numbers[AXES : AXES + len(size)] = size
    bounded: NDArray[np.float64] = np.clip(numbers, -1, 1) / math.sqrt(len(numbers))
    return bounded


def _strata(targets: Tensor, study: Study) -> NDArray[np.float64]:
    """Return the patient's share in each stratum: its images' classes, or its foreground.

    An image of several labels is shared among them; one without any is of the last stratum. A
    patient whom nobody has labelled is in all alike.
    """
    strata = strata_of(study)
    if study.task.unlabelled is not None:
        targets = targets[~without_labels(targets)]
        if not len(targets):
            return np.full(strata, 1 / strata)
    if targets.ndim == 1:
        counts = np.bincount(targets.numpy(), minlength=strata)
        return np.asarray(counts / counts.sum(), dtype=np.float64)
    if not study.task.dense and targets.is_floating_point():
        events = float((targets[:, 1] > 0).double().mean())
        return np.array([1 - events, events])
    if not study.task.dense:
        labels = torch.cat([targets, 1 - targets.amax(1, keepdim=True)], 1).double()
        each: NDArray[np.float64] = (labels / labels.sum(1, keepdim=True)).mean(0).numpy()
        return each
    share = float((targets > 0).double().mean())
    place = int(np.searchsorted(FOREGROUND_EDGES, share))
    chosen: NDArray[np.float64] = np.eye(strata)[place]
    return chosen


def _features(
    model: nn.Module,
    images: Tensor,
    study: Study,
    device: torch.device,
    on_batch: Callable[[], None],
) -> Tensor:
    model.eval()
    found = []
    with torch.inference_mode(), watched(model) as look:
        for some in torch.split(images, BATCH):
            model(some[:, : study.data.planes].to(device))
            found.append(projected(look(), study))
            on_batch()
    return torch.cat(found)


@contextmanager
def watched(model: nn.Module) -> Iterator[Callable[[], Tensor]]:
    """Give a function that returns the features [B, ...] of the model's newest pass, on the CPU.

    Those of the layer that has the fewest places, in coarse blocks. Where a feature is tells
    scanners apart that its mean does not: a norm evens means out. The layer is the bottleneck of a
    U-Net and the last map of a classifier. A network without maps gives what its last linear layer
    reads.
    """
    seen: dict[str, Tensor] = {}

    def begin(_: nn.Module, __: tuple[Tensor, ...]) -> None:
        seen.clear()

    def keep(name: str, of_input: bool) -> Any:  # noqa: ANN401 - a hook of PyTorch
        def hook(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            seen[name] = (inputs[0] if of_input else output).detach()

        return hook

    maps = (_ConvNd, _NormBase, nn.GroupNorm)
    hooks = [
        module.register_forward_hook(keep(name, isinstance(module, nn.Linear)))
        for name, module in model.named_modules()
        if isinstance(module, (*maps, nn.Linear))
    ]
    hooks.append(model.register_forward_pre_hook(begin))
    try:
        yield lambda: _pooled(list(seen.values())).float().cpu()
    finally:
        for hook in hooks:
            hook.remove()


def _pooled(outputs: Sequence[Tensor]) -> Tensor:
    maps = [output for output in outputs if output.ndim > 2]
    if not maps:
        return outputs[-1].flatten(1)
    fewest = min(one[0, 0].numel() for one in maps)
    chosen = [one for one in maps if one[0, 0].numel() == fewest][-1]
    pool: Any = {3: F.adaptive_avg_pool1d, 4: F.adaptive_avg_pool2d, 5: F.adaptive_avg_pool3d}
    pooled: Tensor = pool[chosen.ndim](chosen, FEATURE_PLACES).flatten(1)
    return pooled


def projected(features_NF: Tensor, study: Study) -> Tensor:
    """Return [N, FEATURE_NUMBERS]: the features' direction, seen from a few others.

    The same few at every site. Of all length they see little, so it is scaled up: most images are
    shorter than 1 then. What is not finite counts as 0, so that weights made to overflow on some
    patients tell nothing of them.
    """
    draws = torch.Generator().manual_seed(seed(study.seed, "profile"))
    count = features_NF.shape[1]
    wide = max(count, FEATURE_NUMBERS)
    directions, _ = torch.linalg.qr(torch.randn(wide, FEATURE_NUMBERS, generator=draws))
    known = torch.where(features_NF.isfinite().all(1, keepdim=True), features_NF, 0.0)
    scale = math.sqrt(wide / FEATURE_NUMBERS) / 2
    seen: Tensor = scale * F.normalize(known, dim=1) @ directions[:count]
    return seen


def place_of(features_NF: Tensor) -> NDArray[np.float64]:
    """Return [FEATURE_NUMBERS]: where a patient of these images is among the others."""
    return _cut(features_NF.double().mean(0).numpy())


def _cut(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the vector, shortened to length 1 if it is longer; 0 if it is not finite."""
    if not np.isfinite(values).all():
        return np.zeros_like(values)
    return values / max(1.0, float(np.linalg.norm(values)))
