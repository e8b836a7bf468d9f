"""The model's step after a round in few bits, for sites that have the model before it.

The next model is what the step decodes to, so every site has the same bytes whether it got the
step or the whole, and what is evaluated is what is handed out.
"""

from dataclasses import dataclass, field

from torch import Tensor

from common.coding import coded_way
from common.compression import CODED, moved_by
from common.compression_config import CodecConfig
from common.state import Arrays, State, arrays_of, digest_of, tensors_of


@dataclass(frozen=True, kw_only=True)
class Step:
    """From one model to the next."""

    before: str
    """Digest of the model that it leads from."""
    coded: Tensor
    """Bytes, [n] uint8."""
    left: dict[str, Tensor] = field(default_factory=dict)
    """What coding left out, for the next step."""

    @property
    def arrays(self) -> Arrays:
        """What travels."""
        return arrays_of({CODED: self.coded})


def stepped(
    before: State, after: State, last: Step | None, codec: CodecConfig, draw: int
) -> tuple[dict[str, Tensor], Step]:
    """Return the next model as its step decodes to, and the step.

    after: what the round has made of the model `before`. last: the step that led there. draw: seed
    of the rounding.
    """
    base = arrays_of(before)
    whole, left = coded_way(base, after, {} if last is None else last.left, codec, draw)
    step = Step(before=digest_of(base), coded=whole, left=left)
    return tensors_of(moved_by(base, step.arrays, codec)), step
