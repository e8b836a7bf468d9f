"""The settings of a study's data: how files become tensors."""

import math
from dataclasses import dataclass, field
from typing import Any

from common.checks import in_range, one_of, positive
from common.covariates import check_covariates
from common.frequencies import check_amplitudes

COLUMNS = ("image", "mask", "label", "patient", "split")
"""Columns of a manifest that are no covariates."""
SEQUENCE = "image_"
"""How a column begins that holds the files of one image sequence."""


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """How a site turns its files into tensors of one size."""

    spatial_dims: int = 2
    """2: each picture, or each slice of a volume, is a sample; 3: each volume is a sample."""
    channels: int = 1
    """1 grey, 3 colour, or one a sequence. Colour files are made grey when 1 is asked."""
    covariates: dict[str, list[Any]] | None = None
    """By column of the manifests, what else of a patient the network is told: two numbers, the ends
    of its range, or the words that may stand there. Who lacks one takes part: the network learns
    what "unknown" means. null: images alone."""
    sequences: list[str] | None = None
    """Names of image sequences that are the channels, in this order: of each the manifest has the
    file in a column image_NAME. A patient, or a whole site, without some takes part: what is
    missing is 0, the mean of an image. null: the column image alone."""
    sequence_dropout: float | None = None
    """Chance that a training step sees a sequence as missing, image by image, never all of them
    (ModDrop, Neverova et al., PAMI 2016); null: none."""
    size: list[int] = field(default_factory=lambda: [64, 64])
    """Voxels of a sample, one number per spatial dimension."""
    spacing_mm: list[float] | None = None
    """Voxel size to resample to, in mm, one per spatial dimension; null keeps the file's own."""
    fit: str = "pad_or_crop"
    """How an image reaches `size`: pad_or_crop about the centre, or resize."""
    normalise: str = "zscore"
    """zscore: mean 0, standard deviation 1 per image and channel; minmax: 0 to 1; rank: the values'
    ranks as those of a normal distribution, so that scanners that only stretch intensities give the
    same image; matched: the same with the histogram of `reference`."""
    reference: list[float] | None = None
    """With normalise=matched: the values at equal steps of the share of darker voxels, darkest
    first; result.json of an earlier study has them (shift.reference)."""
    remove_bias: bool | None = None
    """Whether the smooth field of an MR coil is taken out (common/harmonise.py); null: no."""
    segment: list[int] | None = None
    """Size of the part of an image that a training step sees, one number per spatial dimension;
    null: the whole image. Images are tested whole."""
    segment_of_classes: float | None = None
    """Chance that a segment lies around a voxel of a class that the image has, each class as likely
    as the others; else it lies anywhere. Drawn image by image, so that it costs no privacy. null:
    anywhere."""
    augment: str = "none"
    """Random part in training: none, flip (left-right), or full (flips, affine, intensity)."""
    amplitudes: list[list[float]] | None = None
    """By site, the amplitudes of the low spatial frequencies; each training image is seen in the
    style of one of them, more or less. result.json of an earlier study has them
    (shift.amplitudes). null: images are seen as they are."""
    held_out: float = 0.2
    """Share of a site's patients kept for testing, where the manifest has no split column."""
    train_share: float | None = None
    """Share of a site's training patients who train, drawn by the seed; the others wait, as those
    whom nobody has labelled, or with task.unlabelled train as such. null: all."""
    on_bad_file: str = "stop"
    """stop: a bad file ends the site's part before training; skip: go on without it, and count."""

    @property
    def planes(self) -> int:
        """Channels of a sample: those of its image, and one that holds covariates."""
        return self.channels + (self.covariates is not None)

    def __post_init__(self) -> None:
        one_of((2, 3), **{"data.spatial_dims": self.spatial_dims})
        self._check_sequences()
        if self.covariates is not None:
            check_covariates(self.covariates, math.prod(self.size))
        one_of(("pad_or_crop", "resize"), **{"data.fit": self.fit})
        one_of(("zscore", "minmax", "rank", "matched"), **{"data.normalise": self.normalise})
        self._check_reference()
        one_of(("none", "flip", "full"), **{"data.augment": self.augment})
        one_of(("stop", "skip"), **{"data.on_bad_file": self.on_bad_file})
        in_range(0.0, 1.0, **{"data.held_out": self.held_out})
        if self.train_share is not None:
            in_range(0.001, 1.0, **{"data.train_share": self.train_share})
        positive(**{f"data.size[{axis}]": n for axis, n in enumerate(self.size)})
        positive(**{f"data.spacing_mm[{a}]": mm for a, mm in enumerate(self.spacing_mm or [])})
        positive(**{f"data.segment[{axis}]": n for axis, n in enumerate(self.segment or [])})
        self._check_segment()
        for name, values in (
            ("size", self.size),
            ("spacing_mm", self.spacing_mm),
            ("segment", self.segment),
        ):
            if values is not None and len(values) != self.spatial_dims:
                raise ValueError(
                    f"data.{name}={list(values)} has {len(values)} numbers, but "
                    f"data.spatial_dims={self.spatial_dims}; give one number per dimension"
                )
        if self.amplitudes is not None:
            check_amplitudes(self.amplitudes, self.size)

    def _check_sequences(self) -> None:
        names = self.sequences
        if names is None:
            one_of((1, 3), **{"data.channels": self.channels})
            if self.sequence_dropout is not None:
                raise ValueError(
                    f"data.sequence_dropout={self.sequence_dropout:g} drops sequences, and "
                    "data.sequences names none; leave it null"
                )
            return
        if not names or len(set(names)) != len(names) or self.channels != len(names):
            raise ValueError(
                f"data.sequences={list(names)} and data.channels={self.channels} do not fit; name "
                "each sequence once, and give as many channels"
            )
        if len(names) > 1 and self.normalise == "minmax":
            raise ValueError(
                "data.normalise=minmax makes 0 the darkest voxel, and a sequence that is missing "
                "is 0: it would be a black image; set data.normalise=zscore"
            )
        in_range(0.0, 0.95, **{"data.sequence_dropout": self.sequence_dropout or 0.0})

    def _check_segment(self) -> None:
        if any(n > whole for n, whole in zip(self.segment or [], self.size, strict=False)):
            raise ValueError(
                f"data.segment={list(self.segment or [])} is larger than data.size="
                f"{list(self.size)}; give at most the size"
            )
        if self.segment_of_classes is None:
            return
        in_range(0.0, 1.0, **{"data.segment_of_classes": self.segment_of_classes})
        if self.segment is None:
            raise ValueError(
                f"data.segment_of_classes={self.segment_of_classes:g} says where segments lie, and "
                "images are seen whole; give data.segment a size, or leave it null"
            )

    def _check_reference(self) -> None:
        values = self.reference
        if (values is not None) != (self.normalise == "matched"):
            raise ValueError(
                f"data.reference={values} does not go with data.normalise={self.normalise}; give "
                "both normalise=matched and a reference, as shift.reference of a result.json"
            )
        if values is not None and (len(values) < 2 or sorted(values) != values):
            raise ValueError(
                f"data.reference={values} is no list of two or more values, the darkest first"
            )
