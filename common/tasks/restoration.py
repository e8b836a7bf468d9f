"""Restoration: image to image. A poor acquisition in, the image that it was made from out.

Legend of shapes: B images, R = 1 + references, ... the spatial axes.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from common.checks import one_of
from common.data_config import DataConfig
from common.forward import FORWARD, degraded
from common.forward_config import ForwardConfig
from common.tasks.config import TaskConfig
from common.tasks.losses import OF_GREY, SSIM_SIDE, loss_of, similarity
from common.tasks.segmentation import supervised
from common.tasks.task import Bounded, Metric, Sums, Task, check_finite

LARGEST_DB = 60.0
"""A restored image is called no closer than this: its error is then a thousandth of the range."""
_OF_EACH = ("psnr", "ssim")


@dataclass(frozen=True, kw_only=True)
class RestorationConfig(TaskConfig):
    """Settings of a restoration."""

    forward: ForwardConfig = field(
        default_factory=lambda: ForwardConfig(name="undersampled", acceleration=4, centre=0.08)
    )
    """What was done to the images that are to be restored (common/forward.py)."""
    out_channels: int = 1
    """One grey value a voxel."""
    headline: str = "psnr"
    """psnr, ssim or psnr_gain."""

    @property
    def dense(self) -> bool:
        """An answer a voxel."""
        return True

    @property
    def grey(self) -> bool:
        """The answer is a grey value."""
        return True

    @property
    def even_answer(self) -> float:
        """The grey value that says nothing."""
        return 0.5

    @property
    def reads_labels(self) -> bool:
        """The image is its own target."""
        return False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.out_channels != 1 or self.classes:
            raise ValueError(
                f"task.out_channels={self.out_channels}, task.classes={list(self.classes)}: a "
                "restored image has one grey value a voxel and no classes; give 1 and []"
            )
        one_of(restoration_metrics(self.forward), **{"task.headline": self.headline})
        self.check_loss(OF_GREY)

    def check_data(self, data: DataConfig) -> None:
        """Refuse images that the forward model cannot be applied to, or a change of one side."""
        self.forward.check_size(data.size, "data.size")
        if data.segment is not None:
            self._check_segment(data.segment)
        wanted = {"normalise": "minmax", "channels": 1, "amplitudes": None}
        for name, value in wanted.items():
            given = getattr(data, name)
            if given != value:
                raise ValueError(
                    f"data.{name}={given} does not go with task.name={self.name}, whose physics "
                    f"needs one channel of values from 0 to 1; set data.{name}={value}"
                )
        if data.augment == "full":
            raise ValueError(
                f"data.augment=full changes grey values, and of task.name={self.name} they are the "
                "answer; choose flip or none"
            )
        if min(data.size[:2]) < SSIM_SIDE:
            raise ValueError(
                f"data.size={list(data.size)} has a side below {SSIM_SIDE}, over which ssim looks; "
                "give larger images"
            )

    def _check_segment(self, segment: list[int]) -> None:
        self.forward.check_size(segment, "data.segment")
        if self.forward.name == "undersampled":
            raise ValueError(
                f"data.segment={list(segment)} cuts images into parts, and each line of k-space is "
                "of the whole image; set it to null"
            )


def restoration_metrics(forward: ForwardConfig) -> dict[str, Metric]:
    """Return the metrics by name, those of the references too."""
    return {
        "psnr": Metric(
            True, "dB", "peak signal-to-noise ratio, mean over patients.", high=LARGEST_DB
        ),
        "ssim": Metric(True, "", "structural similarity of slices, mean over patients.", low=-1.0),
        "psnr_gain": Metric(
            True,
            "dB",
            "psnr above the best of the references.",
            low=-LARGEST_DB,
            high=LARGEST_DB,
        ),
        **{
            f"{of}_{name}": Metric(
                True,
                "dB" if of == "psnr" else "",
                f"{of} of the reference {name}, without a network.",
                low=0.0 if of == "psnr" else -1.0,
                high=LARGEST_DB if of == "psnr" else 1.0,
            )
            for name in FORWARD[forward.name].references
            for of in _OF_EACH
        },
    }


def build_restoration(config: RestorationConfig) -> Task:
    """Return the task. Targets are float32: the clean image, and behind it what each reference is.

    [B, R, ...] of a batch, [R, ...] of one. In training the degradation is drawn anew in each step,
    of the held-out patients it is fixed. Sums, each [R]: `psnr` and `ssim`, the patients' values,
    the network's first; `patients`, how many they are.
    """
    criterion = loss_of(OF_GREY, config.loss, config.out_channels)
    names = FORWARD[config.forward.name].references

    def vary(images: Tensor, targets: Tensor, draws: torch.Generator) -> tuple[Tensor, Tensor]:
        del images
        return degraded(targets[:, :1], config.forward, draws), targets

    return Task(
        config=config,
        metrics=restoration_metrics(config.forward),
        loss=lambda logits, target: supervised(criterion, logits.float(), target[:, :1]),
        activate=lambda logits: logits.float().clamp(0.0, 1.0),
        measure=measure,
        patient_sums=patient_sums,
        score=lambda sums: score(sums, names),
        # Each of 2 R numbers of a patient is in [0, 1].
        bounded=Bounded(bounded_row, math.sqrt(2 * (1 + len(names))), restored),
        vary=vary,
    )


def measure(probabilities: Tensor, target: Tensor, spacing_mm: Sequence[float]) -> Sums:
    """Return the record of one image or volume, each [R]: psnr and ssim, the network's first.

    probabilities: [1, ...], the restored image. target: [R, ...]. PSNR is over all voxels; SSIM is
    the mean over the slices of a volume (Zbontar et al., fastMRI, 2018, Sec. 5).

    Raises:
        ValueError: a grey value is not finite, or the shapes do not fit.
    """
    del spacing_mm
    check_finite(probabilities)
    if probabilities.shape[1:] != target.shape[1:] or len(probabilities) != 1:
        raise ValueError(
            f"a restored image of shape {tuple(probabilities.shape)} does not go with a target of "
            f"shape {tuple(target.shape)}; give [1, ...] and [references, ...]"
        )
    clean, found = target[:1], torch.cat([probabilities.cpu(), target[1:]])
    errors = (found - clean).square().flatten(1).double().mean(1).numpy()
    return {"psnr": _decibels(errors), "ssim": _similarity(found, clean)}


def _decibels(errors: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return 10 log10(1 / mean squared error); grey values go from 0 to 1."""
    return -10 * np.log10(np.maximum(errors, 10 ** (-LARGEST_DB / 10)))


def _similarity(found_RS: Tensor, clean_1S: Tensor) -> NDArray[np.float64]:
    if found_RS.ndim == 3:
        found, clean = found_RS[:, None], clean_1S[:, None].expand(len(found_RS), -1, -1, -1)
        return np.asarray(similarity(found, clean).double().numpy(), dtype=np.float64)
    slices = range(found_RS.shape[-1])
    each = [_similarity(found_RS[..., place], clean_1S[..., place]) for place in slices]
    return np.asarray(np.mean(each, axis=0), dtype=np.float64)


def patient_sums(records: Sequence[Sums]) -> Sums:
    """Return the sums of one patient: the mean over the patient's images.

    Raises:
        ValueError: no records.
    """
    if not records:
        raise ValueError("a patient without images cannot be scored; leave the patient out")
    means = {name: np.mean([record[name] for record in records], axis=0) for name in _OF_EACH}
    return {**means, "patients": np.ones_like(means["psnr"])}


def score(sums: Sums, names: Sequence[str]) -> dict[str, float]:
    """Return the metrics of the patients that the sums are over."""
    patients = sums["patients"].sum() / sums["patients"].size
    values: dict[str, float] = {}
    for of in _OF_EACH:
        means = sums[of] / patients if patients else np.full(1 + len(names), math.nan)
        values |= {of: float(means[0])}
        values |= {f"{of}_{name}": float(m) for name, m in zip(names, means[1:], strict=True)}
    values["psnr_gain"] = values["psnr"] - max(values[f"psnr_{name}"] for name in names)
    return values


def bounded_row(sums: Sums) -> Sums:
    """Return a patient's values, each brought to [0, 1]."""
    psnr = np.nan_to_num(sums["psnr"]) / LARGEST_DB
    ssim = (1 + np.nan_to_num(sums["ssim"])) / 2
    return {"psnr": np.clip(psnr, 0.0, 1.0), "ssim": np.clip(ssim, 0.0, 1.0)}


def restored(sums: Sums, patients: int) -> Sums:
    """Return totals with noise as those of so many patients."""
    psnr, ssim = (np.clip(sums[name], 0.0, patients) for name in _OF_EACH)
    return {
        "psnr": LARGEST_DB * psnr,
        "ssim": 2 * ssim - patients,
        "patients": np.full_like(psnr, patients),
    }
