"""The site's last answer and its secret key: what must outlive a killed process."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from common.compression import CODED
from common.control import parted
from common.secret_files import secret_key
from common.state import arrays_of
from common.tensor_files import named_under, read_tensors, write_tensors

OUTBOX, KEY, KEY_BYTES = "last_reply.safetensors", "key", 32
_WEIGHTS, _LOCAL, _LEFT, _CODED = "weights/", "local/", "left/", "coded"


@dataclass(frozen=True, kw_only=True)
class Kept:
    """A finished round: what was asked, what is answered, and what stays at the site."""

    asked: str
    """Key of the request: the same request is answered with the same bytes."""
    release: str
    """Name of what left: what its draws and its noise come from, and what was charged."""
    body: dict[str, Any]
    weights: dict[str, Tensor]
    local: dict[str, Tensor]
    """Tensors that never travel (batch normalisation with the policy `local`)."""
    coded: Tensor | None = None
    """What leaves in the place of the weights, where the study codes them: bytes, [n] uint8."""
    left: dict[str, Tensor] = field(default_factory=dict)
    """What coding left out, for the next update."""

    @property
    def leaving(self) -> dict[str, NDArray[np.generic]]:
        """The arrays that leave."""
        return arrays_of(self.weights if self.coded is None else {CODED: self.coded})

    @property
    def stays(self) -> bool:
        """Whether the next round needs something of it: then all of it is kept.

        What the site has of its own has moved on by then, so the same could not be made again.
        """
        return bool(self.local or self.left or parted(self.weights)[1])


@dataclass(frozen=True)
class Outbox:
    """One file: an update and what stays of it are stored together or not at all."""

    folder: Path

    def store(self, kept: Kept) -> None:
        """Replace what was kept."""
        tensors = {_WEIGHTS + name: tensor for name, tensor in kept.weights.items()}
        tensors |= {_LOCAL + name: tensor for name, tensor in kept.local.items()}
        tensors |= {_LEFT + name: tensor for name, tensor in kept.left.items()}
        tensors |= {} if kept.coded is None else {_CODED: kept.coded}
        about = {"asked": kept.asked, "release": kept.release, "body": kept.body}
        write_tensors(self.folder / OUTBOX, tensors, about)

    def last(self) -> Kept | None:
        """Return what was kept, or None before the first round."""
        path = self.folder / OUTBOX
        if not path.exists():
            return None
        tensors, about = read_tensors(path)
        return Kept(
            asked=about["asked"],
            release=about["release"],
            body=about["body"],
            weights=named_under(_WEIGHTS, tensors),
            local=named_under(_LOCAL, tensors),
            coded=tensors.get(_CODED),
            left=named_under(_LEFT, tensors),
        )


def site_key(folder: Path) -> bytes:
    """Return the site's secret, made at its first use; readable by its owner alone.

    Noise and Poisson draws are seeded with it: whoever has it can subtract the noise.
    """
    return secret_key(folder / KEY, KEY_BYTES)
