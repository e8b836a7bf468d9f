"""Where mixed precision may be used: on a GPU, and on a CPU where it is fast and right."""

import torch
from torch import Tensor, nn

from common.contract import RefusalError
from common.models.registry import sketch
from common.segments import seen_size
from common.study import Study

BFLOAT16 = ("amx_bf16", "avx512_bf16", "bf16", "sve_bf16")
"""Names of the arithmetic in torch.cpu.get_capabilities, on x86 and on ARM."""
SHORT = 2
"""Voxels. Where a convolution strides over a last axis of so few, the bfloat16 kernels of oneDNN
(torch 2.13) read memory that nothing has written: another answer each time, or none."""
_STRIDED = (nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d, nn.ConvTranspose3d)


def check_mixed_precision(study: Study, device: torch.device) -> None:
    """Refuse mixed precision on a CPU that emulates it, with privacy, and where it would be wrong.

    With privacy the same request must give the same sums, or two answers with the same noise could
    be subtracted; what a processor's kernels do is too little known to promise that.

    Raises:
        RefusalError: says which, and what to set.
    """
    if not study.training.amp or device.type != "cpu":
        return
    able = torch.cpu.get_capabilities()
    if not any(able.get(name) for name in BFLOAT16):
        raise RefusalError(
            "study",
            "training.amp=true would be slower here: this site trains on a CPU that has no "
            "arithmetic for it; set amp to false",
        )
    if study.privacy.private:
        raise RefusalError(
            "study",
            "training.amp=true with privacy needs a GPU, this site trains on a CPU; set amp to "
            "false",
        )
    if strides_over_short_axis(study):
        raise RefusalError(
            "study",
            f"training.amp=true is computed wrongly on a CPU where a convolution strides over "
            f"{SHORT} voxels or fewer, as this network does; set amp to false, or give larger "
            "images or fewer levels",
        )


def strides_over_short_axis(study: Study) -> bool:
    """Return whether a convolution with a stride has a last axis of SHORT voxels or fewer.

    Of a transposed one it is the axis that comes out: it is the other's backward pass.
    """
    network = sketch(study.model)
    found: list[int] = []

    def note(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        if max(module.stride) > 1:  # type: ignore[arg-type]
            coarse = module.transposed
            found.append((output if coarse else inputs[0]).shape[-1])

    for module in network.modules():
        if isinstance(module, _STRIDED):
            module.register_forward_hook(note)
    network.eval()(torch.empty(1, study.data.planes, *seen_size(study), device="meta"))
    return any(voxels <= SHORT for voxels in found)
