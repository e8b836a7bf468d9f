"""Where a network looked: maps over one image, by methods that ask in different ways.

Nothing of it leaves a site. Legend of shapes: C channels, K classes, S the spatial axes, N tokens.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from captum._utils.models.linear_model import SkLearnLinearRegression
from captum.attr import Attribution, IntegratedGradients, Lime, Occlusion, Saliency
from monai.networks.nets.attentionunet import AttentionBlock
from monai.networks.nets.vit import ViT
from monai.visualize import GradCAM, GradCAMpp
from numpy.typing import NDArray
from scipy.stats import spearmanr
from skimage.segmentation import slic
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _NormBase

from common.tasks.one_output import of_both

Explainer = Callable[["Asked"], Tensor]
"""One image and class -> a map [*S] of the image's size; larger speaks more for the class."""
STEPS, SAMPLES, SUPERPIXELS = 64, 200, 60
ALIKE = 0.5
"""Rank correlation with the map of a network of random weights, from which on a map is called out:
it shows the image rather than what was learned (Adebayo et al., NeurIPS 2018, Sec. 3)."""
_LAYERS = (nn.Conv2d, nn.Conv3d, nn.GroupNorm, _NormBase)
_INTERPOLATION = {2: "bilinear", 3: "trilinear"}


class PerImage(nn.Module):
    """A network with one score a class and image.

    Of a segmentation the mean logit over the voxels that the network gives the class (Vinogradova
    et al., AAAI 2020), as it sees the image whole; over all voxels where it gives it none.
    """

    def __init__(self, network: nn.Module, image_1CS: Tensor) -> None:
        super().__init__()
        self.network = network
        with torch.no_grad():
            logits = of_both(network(image_1CS))
        self.dense = logits.ndim > 2
        answers = logits.argmax(1, keepdim=True)
        given = torch.cat([answers == k for k in range(logits.shape[1])], 1).float()
        if self.dense:
            given[given.flatten(2).sum(2) == 0] = 1.0
        self.register_buffer("voxels_1KS", given)

    def forward(self, images: Tensor) -> Tensor:
        """Return scores [B, K]."""
        logits = of_both(self.network(images))
        if not self.dense:
            return logits
        voxels: Any = self.voxels_1KS
        total: Tensor = (logits * voxels).flatten(2).sum(2) / voxels.flatten(2).sum(2)
        return total


@dataclass(frozen=True)
class Asked:
    """What is to be explained."""

    network: nn.Module
    """In eval mode, on the CPU."""
    image_1CS: Tensor
    of_class: int

    @property
    def scores(self) -> PerImage:
        """The network with one score a class."""
        return PerImage(self.network, self.image_1CS)


@dataclass(frozen=True)
class Explained:
    """A map, and what speaks for and against it."""

    method: str
    map_S: NDArray[np.float64]
    alike: float | None
    """Rank correlation with the map of the same network with random weights; None: a flat map."""
    hit: bool | None
    """Whether its highest voxel lies in the lesion (pointing game, Zhang et al., IJCV 2018); of
    several that are as high, half of them or more. None without a mask of a lesion."""

    @property
    def trusted(self) -> bool:
        """Whether the map depends on what the network has learned."""
        return self.alike is not None and abs(self.alike) < ALIKE


def explainers_of(network: nn.Module) -> dict[str, Explainer]:
    """Return the methods that fit the network, by name."""
    found: dict[str, Explainer] = {}
    if not _is_of_attention(network) and any(isinstance(m, _LAYERS) for m in network.modules()):
        found |= {"grad_cam": _grad_cam, "grad_cam_pp": _grad_cam_pp}
    found |= {
        "saliency": _saliency,
        "integrated_gradients": _integrated_gradients,
        "occlusion": _occlusion,
        "lime": _lime,
    }
    if _is_of_attention(network):
        found["attention_rollout"] = attention_rollout
    if any(isinstance(m, AttentionBlock) for m in network.modules()):
        found["attention_gates"] = attention_gates
    return found


def explained(
    method: str, asked: Asked, untrained: nn.Module, lesion_S: Tensor | None
) -> Explained:
    """Return a method's map with its checks.

    untrained: the same network with random weights. lesion_S: bool, where the class truly is.
    """
    explainer = explainers_of(asked.network)[method]
    found = explainer(asked).detach().double().numpy()
    other = explainer(Asked(untrained, asked.image_1CS, asked.of_class)).detach().double().numpy()
    hit = None
    if lesion_S is not None and bool(lesion_S.any()):
        hit = bool(lesion_S.numpy()[found == found.max()].mean() >= 0.5)
    return Explained(method, found, alike(found, other), hit)


def alike(first: NDArray[np.float64], second: NDArray[np.float64]) -> float | None:
    """Return the rank correlation of two maps' magnitudes; None where one is flat."""
    sizes = [np.abs(first).ravel(), np.abs(second).ravel()]
    if any(np.ptp(size) == 0 for size in sizes):
        return None
    return float(spearmanr(*sizes).statistic)


def target_layer(asked: Asked) -> str | None:
    """Return the last convolution or norm with more channels than classes that runs on an image.

    With fewer there is nothing to weigh, as in a U-Net's last layers; where no layer has more, the
    last. None in a network of attention, or one without such layers.
    """
    if _is_of_attention(asked.network):
        return None
    ran: dict[str, int] = {}
    axes = asked.image_1CS.ndim

    def noted(name: str) -> Callable[[nn.Module, object, Tensor], None]:
        def note(_: nn.Module, __: object, output: Tensor) -> None:
            if output.ndim == axes and output[0, 0].numel() > 1:
                # At its end, in the order of the last runs.
                ran.pop(name, None)
                ran[name] = output.shape[1]

        return note

    hooks = [
        module.register_forward_hook(noted(name))
        for name, module in asked.network.named_modules()
        if isinstance(module, _LAYERS)
    ]
    try:
        with torch.no_grad():
            classes = asked.network(asked.image_1CS).shape[1]
    finally:
        for hook in hooks:
            hook.remove()
    wide = [name for name, channels in ran.items() if channels > classes]
    return next(reversed(wide or list(ran)), None)


def _is_of_attention(network: nn.Module) -> bool:
    return any(isinstance(m, ViT) and m.classification for m in network.modules())


def _grad_cam(asked: Asked) -> Tensor:
    """Selvaraju et al., ICCV 2017."""
    return _activation_map(GradCAM, asked)


def _grad_cam_pp(asked: Asked) -> Tensor:
    """Chattopadhay et al., WACV 2018."""
    return _activation_map(GradCAMpp, asked)


def _activation_map(kind: Callable[..., Callable[..., Tensor]], asked: Asked) -> Tensor:
    layer = f"network.{target_layer(asked)}"
    cam = kind(nn_module=asked.scores, target_layers=layer, postprocessing=lambda found: found)
    return torch.as_tensor(cam(x=asked.image_1CS, class_idx=asked.of_class))[0, 0]


def _saliency(asked: Asked) -> Tensor:
    """Simonyan et al., ICLR Workshop 2014: |d score / d voxel|."""
    return _of_captum(Saliency(asked.scores), asked, abs=True)


def _integrated_gradients(asked: Asked) -> Tensor:
    """Sundararajan et al., ICML 2017, from the image of zeros: the mean after zscore."""
    return _of_captum(
        IntegratedGradients(asked.scores), asked, n_steps=STEPS, internal_batch_size=STEPS
    )


def _occlusion(asked: Asked) -> Tensor:
    """Zeiler and Fergus, ECCV 2014: how far the score falls where a patch is put to zero."""
    size = asked.image_1CS.shape[2:]
    patch = [max(n // 8, 1) for n in size]
    channels = asked.image_1CS.shape[1]
    return _of_captum(
        Occlusion(asked.scores),
        asked,
        sliding_window_shapes=(channels, *patch),
        strides=(channels, *(max(n // 2, 1) for n in patch)),
        perturbations_per_eval=16,
    )


def _lime(asked: Asked) -> Tensor:
    """Ribeiro et al., KDD 2016, on superpixels (SLIC, Achanta et al., PAMI 2012)."""
    image_SC = asked.image_1CS[0].movedim(0, -1).numpy()
    # Parts down to a tenth of the usual size stay apart: small lesions would be joined to others.
    parts_S = slic(
        image_SC,
        SUPERPIXELS,
        compactness=0.1,
        channel_axis=-1,
        start_label=0,
        min_size_factor=0.1,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return _of_captum(
            Lime(asked.scores, interpretable_model=SkLearnLinearRegression()),
            asked,
            feature_mask=torch.from_numpy(parts_S)[None, None],
            n_samples=SAMPLES,
            perturbations_per_eval=16,
        )


def _of_captum(method: Attribution, asked: Asked, **settings: object) -> Tensor:
    image_1CS = asked.image_1CS.clone().requires_grad_()
    found: Tensor = method.attribute(image_1CS, target=asked.of_class, **settings)
    return found.detach()[0].sum(0)


def attention_rollout(asked: Asked) -> Tensor:
    """Return what the class token sees of each patch, through all blocks (Abnar, ACL 2020)."""
    vit: Any = next(m for m in asked.network.modules() if isinstance(m, ViT))
    for block in vit.blocks:
        block.attn.save_attn = True
    try:
        with torch.no_grad():
            asked.network(asked.image_1CS)
        flow_NN = None
        for block in vit.blocks:
            seen = block.attn.att_mat[0].mean(0)
            seen = (seen + torch.eye(len(seen))) / 2
            flow_NN = seen if flow_NN is None else seen @ flow_NN
    finally:
        for block in vit.blocks:
            block.attn.save_attn = False
    assert flow_NN is not None
    size = asked.image_1CS.shape[2:]
    patch = vit.patch_embedding.patch_embeddings.kernel_size
    grid = [n // p for n, p in zip(size, patch, strict=True)]
    return _enlarged(flow_NN[0, 1:].view(1, 1, *grid), size)


def attention_gates(asked: Asked) -> Tensor:
    """Return how far the finest attention gate is open at each voxel (Oktay et al., MIDL 2018)."""
    gates: list[Tensor] = []

    def note(_: nn.Module, __: object, output: Tensor) -> None:
        gates.append(output)

    hooks: list[Any] = [
        module.psi.register_forward_hook(note)
        for module in asked.network.modules()
        if isinstance(module, AttentionBlock)
    ]
    try:
        with torch.no_grad():
            asked.network(asked.image_1CS)
    finally:
        for hook in hooks:
            hook.remove()
    finest = max(gates, key=lambda gate: gate.numel())
    return _enlarged(finest, asked.image_1CS.shape[2:])


def _enlarged(map_11S: Tensor, size: torch.Size) -> Tensor:
    mode = _INTERPOLATION[len(size)]
    return F.interpolate(map_11S, size=list(size), mode=mode, align_corners=False)[0, 0]


METHODS: Mapping[str, str] = {
    "grad_cam": "Grad-CAM, Selvaraju et al., ICCV 2017",
    "grad_cam_pp": "Grad-CAM++, Chattopadhay et al., WACV 2018",
    "saliency": "Simonyan et al., ICLR Workshop 2014",
    "integrated_gradients": "Sundararajan et al., ICML 2017",
    "occlusion": "Zeiler and Fergus, ECCV 2014",
    "lime": "Ribeiro et al., KDD 2016",
    "attention_rollout": "Abnar and Zuidema, ACL 2020; vit",
    "attention_gates": "Oktay et al., MIDL 2018; attention_unet",
}
"""Every method, with its source."""
