"""The losses by name. Each is a mean over the images of a batch of what each image has alone.

Legend of shapes: B images, K classes with the background first in a segmentation, ... the spatial
axes. A loss that were weighted by the batch's own classes, as PyTorch's weighted mean is, would
make one patient's gradient hang on the others, and would not be the mean of the sites' losses.
"""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

import torch
from monai.losses import DiceCELoss, DiceLoss, GeneralizedDiceLoss, TverskyLoss
from monai.metrics.regression import compute_ssim_and_cs
from torch import Tensor
from torch.nn import functional as F

from common.tasks.config import LossConfig

Loss = Callable[[Tensor, Tensor], Tensor]
FOCAL_GAMMA = 2.0
"""Lin et al., ICCV 2017, Sec. 4."""
FOCAL_TVERSKY_GAMMA = 4 / 3
"""Abraham and Khan, ISBI 2019, Sec. 2.3."""
SURE = 1e-6
"""Below it a share counts as this: there the slope of a power under 1 has no bound."""
SSIM_SIDE = 7
"""Side of the window of SSIM in pixels, as scikit-image has it."""
SSIM_SHARE = 0.84
"""Zhao et al., TCI 2017, Sec. III-D: the weight of SSIM beside L1."""
FALSE_NEGATIVES = 0.7
"""Salehi et al., MLMI 2017: the weight of what is missed; what is found wrongly has the rest."""


def cross_entropy(config: LossConfig, classes: int) -> Loss:
    """Return -w_y log p_y, by class weights w (1 without), mean over voxels and images."""
    if config.class_weights is None:
        return lambda logits, target: F.cross_entropy(logits, _labels(logits, target))
    return focal_of(0.0, _weights(config, classes))


def focal(config: LossConfig, classes: int) -> Loss:
    """Return -w_y (1 - p_y)^gamma log p_y (Lin et al., ICCV 2017, Eq. 5)."""
    return focal_of(_gamma(config), _weights(config, classes))


def focal_of(gamma: float, weight_K: Tensor) -> Loss:
    """Return the focal loss; gamma 0 is the weighted cross-entropy."""

    def loss(logits: Tensor, target: Tensor) -> Tensor:
        labels = _labels(logits, target)
        entropy = F.cross_entropy(logits, labels, reduction="none")
        return _focused(entropy, weight_K.to(logits.device)[labels], gamma)

    return loss


def dice_ce(config: LossConfig, classes: int) -> Loss:
    """Return soft Dice and cross-entropy added (Taghanaki et al., 2019), Dice without background.

    With class weights the cross-entropy has them.
    """
    if config.class_weights is None:
        return _monai(DiceCELoss(**_FOREGROUND))
    soft, entropy = _monai(DiceLoss(**_FOREGROUND)), cross_entropy(config, classes)
    return lambda logits, target: soft(logits, target) + entropy(logits, target)


def dice(config: LossConfig, classes: int) -> Loss:
    """Return soft Dice (Milletari et al., 3DV 2016), mean over the classes but the background.

    With class weights the mean is weighted by them; the background's has no effect.
    """
    if config.class_weights is None:
        return _monai(DiceLoss(**_FOREGROUND))
    each = _monai(DiceLoss(**_FOREGROUND, reduction="none"))
    weight_K = _weights(config, classes)[1:]
    share_K = weight_K / weight_K.sum()
    return lambda logits, target: (
        (each(logits, target).flatten(1) * share_K.to(logits.device)).sum(1).mean()
    )


def generalised_dice(config: LossConfig, classes: int) -> Loss:
    """Return Dice with each class by the inverse square of its size (Sudre et al., DLMIA 2017)."""
    del config, classes
    return _monai(GeneralizedDiceLoss(to_onehot_y=True, softmax=True))


def tversky(config: LossConfig, classes: int) -> Loss:
    """Return 1 - the Tversky index (Salehi et al., MLMI 2017, Eq. 4), mean over the classes."""
    del classes
    return _monai(TverskyLoss(**_FOREGROUND, **_sides(config)))


def focal_tversky(config: LossConfig, classes: int) -> Loss:
    """Return (1 - the Tversky index)^(1 / gamma) (Abraham and Khan, ISBI 2019, Eq. 4)."""
    del classes
    each = _monai(TverskyLoss(**_FOREGROUND, **_sides(config), reduction="none"))
    power = 1 / (FOCAL_TVERSKY_GAMMA if config.gamma is None else config.gamma)
    return lambda logits, target: (each(logits, target).clamp(min=SURE) ** power).mean()


def label_cross_entropy(config: LossConfig, labels: int) -> Loss:
    """Return -w y log p - (1 - y) log(1 - p), mean over the labels (Rajpurkar et al., 2017, Eq. 1).

    w: class_weights, of an image that has the label beside one that has not.
    """
    return label_focal_of(0.0, _weights(config, labels))


def label_focal(config: LossConfig, labels: int) -> Loss:
    """Return the focal loss of each label's answer, mean over the labels."""
    return label_focal_of(_gamma(config), _weights(config, labels))


def label_focal_of(gamma: float, weight_K: Tensor) -> Loss:
    """Return (1 - p of the truth)^gamma times the weighted cross-entropy of each label."""

    def loss(logits: Tensor, target_BK: Tensor) -> Tensor:
        truth = target_BK.to(logits.dtype)
        entropy = F.binary_cross_entropy_with_logits(logits, truth, reduction="none")
        return _focused(entropy, torch.where(target_BK > 0, weight_K.to(logits.device), 1.0), gamma)

    return loss


def l1(config: LossConfig, channels: int) -> Loss:
    """Return the mean absolute error of grey values."""
    del config, channels
    return lambda grey, target: F.l1_loss(grey, target)


def l2(config: LossConfig, channels: int) -> Loss:
    """Return the mean squared error of grey values; the least has the best PSNR."""
    del config, channels
    return lambda grey, target: F.mse_loss(grey, target)


def l1_ssim(config: LossConfig, channels: int) -> Loss:
    """Return 0.16 L1 + 0.84 (1 - SSIM) (Zhao et al., TCI 2017, Eq. 8, SSIM at one scale)."""
    del config, channels

    def loss(grey: Tensor, target: Tensor) -> Tensor:
        unlike = 1 - similarity(_slices(grey), _slices(target)).mean()
        return (1 - SSIM_SHARE) * F.l1_loss(grey, target) + SSIM_SHARE * unlike

    return loss


def hidden_l2(config: LossConfig, channels: int) -> Loss:
    """Return the mean squared error of what is hidden: of each image, then of the batch.

    target: [B, 2, ...], the image and 1 where it is hidden.
    """
    del config, channels
    return _of_hidden(torch.square)


def hidden_l1(config: LossConfig, channels: int) -> Loss:
    """Return the mean absolute error of what is hidden (Xie et al., CVPR 2022, Eq. 1)."""
    del config, channels
    return _of_hidden(torch.abs)


def _of_hidden(cost: Callable[[Tensor], Tensor]) -> Loss:
    def loss(grey: Tensor, target: Tensor) -> Tensor:
        image, places = target[:, :1].flatten(1), target[:, 1:].flatten(1)
        each = (cost(grey.flatten(1) - image) * places).sum(1) / places.sum(1).clamp(min=1.0)
        return each.mean()

    return loss


def hazard(config: LossConfig, intervals: int) -> Loss:
    """Return -log of the likelihood of what happened, of logits_BK and happened_BK2.

    happened: whether an image's patient was free of the event in an interval, and whether it
    happened in it. Singer and Willett, 1993; Gensheimer and Narasimhan, PeerJ 2019, Eq. 2.
    """
    del config, intervals

    def loss(logits: Tensor, happened: Tensor) -> Tensor:
        free, at = happened.unbind(2)
        return (free * F.softplus(logits) + at * F.softplus(-logits)).sum(1).mean()

    return loss


def similarity(grey_BCXY: Tensor, target_BCXY: Tensor) -> Tensor:
    """Return SSIM of each image [B], for values of 0 to 1 (Wang et al., TIP 2004, Eq. 13)."""
    window = [SSIM_SIDE, SSIM_SIDE]
    ssim, _ = compute_ssim_and_cs(
        grey_BCXY, target_BCXY, 2, window, [1.5, 1.5], kernel_type="uniform"
    )
    of_each: Tensor = ssim.flatten(1).mean(1)
    return of_each


def _slices(images: Tensor) -> Tensor:
    """Return a volume's slices as images of a larger batch; a plane is one."""
    return images.movedim(-1, 1).flatten(0, 1) if images.ndim == 5 else images


_FOREGROUND = {"to_onehot_y": True, "softmax": True, "include_background": False}
OF_VOXELS: Mapping[str, Callable[[LossConfig, int], Loss]] = MappingProxyType(
    {
        "dice_ce": dice_ce,
        "dice": dice,
        "cross_entropy": cross_entropy,
        "focal": focal,
        "tversky": tversky,
        "focal_tversky": focal_tversky,
        "generalised_dice": generalised_dice,
    }
)
"""What a segmentation may learn by; the first is the usual one."""
OF_GREY: Mapping[str, Callable[[LossConfig, int], Loss]] = MappingProxyType(
    {"l1": l1, "l2": l2, "l1_ssim": l1_ssim}
)
"""What a restoration may learn by; the first is the usual one."""
OF_HIDDEN: Mapping[str, Callable[[LossConfig, int], Loss]] = MappingProxyType(
    {"l2": hidden_l2, "l1": hidden_l1}
)
"""What a pre-training by hidden patches may learn by; the first is the usual one."""
OF_TIMES: Mapping[str, Callable[[LossConfig, int], Loss]] = MappingProxyType({"hazard": hazard})
"""What a survival task may learn by."""
OF_IMAGES: Mapping[str, Callable[[LossConfig, int], Loss]] = MappingProxyType(
    {"cross_entropy": cross_entropy, "focal": focal}
)
"""What a classification may learn by; the first is the usual one."""
OF_LABELS: Mapping[str, Callable[[LossConfig, int], Loss]] = MappingProxyType(
    {"cross_entropy": label_cross_entropy, "focal": label_focal}
)
"""What a classification into several labels may learn by; the first is the usual one."""


def loss_of(
    known: Mapping[str, Callable[[LossConfig, int], Loss]], config: LossConfig | None, classes: int
) -> Loss:
    """Return the loss that the settings name, or the usual one; over so many classes."""
    if config is None:
        return next(iter(known.values()))(LossConfig(name=next(iter(known))), classes)
    return known[config.name](config, classes)


def _labels(logits: Tensor, target: Tensor) -> Tensor:
    return target[:, 0] if target.ndim == logits.ndim else target


def _gamma(config: LossConfig) -> float:
    return FOCAL_GAMMA if config.gamma is None else config.gamma


def _focused(entropy: Tensor, factor: Tensor, gamma: float) -> Tensor:
    """Return the mean of factor (1 - p)^gamma entropy; p: of the truth; entropy: -log p."""
    if gamma:
        factor = factor * (1 - torch.exp(-entropy)).clamp(min=SURE) ** gamma
    return (factor * entropy).mean()


def _weights(config: LossConfig, classes: int) -> Tensor:
    given: Sequence[float] | None = config.class_weights
    return torch.ones(classes) if given is None else torch.tensor(list(given))


def _sides(config: LossConfig) -> dict[str, float]:
    missed = FALSE_NEGATIVES if config.false_negatives is None else config.false_negatives
    return {"alpha": 1 - missed, "beta": missed}


def _monai(criterion: torch.nn.Module) -> Loss:
    def loss(logits: Tensor, target: Tensor) -> Tensor:
        value: Tensor = criterion(logits, target)
        return value

    return loss
