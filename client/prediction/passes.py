"""Passes of a network over prepared images: whole or in windows, as they are or mirrored too.

Shape suffixes: B images, C channels, K classes, S spatial axes, N images, F features.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from monai.inferers import sliding_window_inference
from monai.transforms import ResizeWithPadOrCrop
from torch import Tensor, nn

from client.evaluation import BATCH
from client.profile import projected, watched
from common.study import Study
from common.tasks.task import Task, check_finite, with_mirrored

OVERLAP = 0.25
"""Of neighbouring windows; MONAI's usual share."""


@dataclass(frozen=True, kw_only=True)
class Passes:
    """How a study's model looks at images."""

    network: nn.Module
    """In eval mode, on the device."""
    study: Study
    task: Task
    device: torch.device

    def look(self, images_BCS: Tensor) -> tuple[Tensor, Tensor]:
        """Return probabilities [B, K, *S or nothing] and features [B, F], on the CPU.

        An image larger than the study's is covered by windows of the study's size that overlap,
        weighted by a Gaussian (MONAI's sliding_window_inference); its features are of its centre,
        as a training site's are.

        Raises:
            ValueError: a probability is not a finite number.
        """
        probabilities, features = [], []
        with torch.inference_mode():
            for images in torch.split(images_BCS, BATCH):
                of_images, of_features = self._batch(images)
                check_finite(of_images)
                probabilities.append(of_images)
                features.append(of_features)
        return torch.cat(probabilities), torch.cat(features)

    def _batch(self, images_BCS: Tensor) -> tuple[Tensor, Tensor]:
        size = self.study.data.size
        fits = list(images_BCS.shape[2:]) == list(size)
        with watched(self.network) as features:
            answers = self._activated(images_BCS if fits else _centres(images_BCS, size))
            seen = projected(features(), self.study)
        ask = self._activated if fits else self._windows
        if not fits:
            answers = ask(images_BCS)
        return with_mirrored(answers, ask, images_BCS, self.task.config), seen

    def _activated(self, images_BCS: Tensor) -> Tensor:
        return self.task.activate(self.network(images_BCS.to(self.device))).cpu()

    def _windows(self, images_BCS: Tensor) -> Tensor:
        # The windows' answers are laid together on the CPU: a whole CT need not fit on a GPU.
        found: Tensor = sliding_window_inference(
            inputs=images_BCS,
            roi_size=self.study.data.size,
            sw_batch_size=1 if self.study.data.spatial_dims == 3 else BATCH,
            predictor=lambda windows: self.task.activate(self.network(windows)),
            overlap=OVERLAP,
            mode="gaussian",
            sw_device=self.device,
            device="cpu",
        )
        return found


def _centres(images_BCS: Tensor, size: Sequence[int]) -> Tensor:
    batch, channels, *axes = images_BCS.shape
    # MONAI's transforms take one image; what is done to its channels is done to all of these.
    fit = ResizeWithPadOrCrop(list(size))
    flat: Tensor = fit(images_BCS.reshape(batch * channels, *axes)).as_tensor()
    return flat.reshape(batch, channels, *size)
