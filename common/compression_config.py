"""How weights are made small on their way (common/compression.py)."""

from dataclasses import dataclass

from common.checks import in_range, one_of, positive

LARGEST_BLOCK = 65536
NUMBERS = ("float32", "bfloat16", "int8", "int4")


@dataclass(frozen=True, kw_only=True)
class CodecConfig:
    """How a difference between two models is coded."""

    numbers: str = "int8"
    """What a number travels as: float32, bfloat16, int8 or int4; rounded up or down by chance."""
    block: int = 256
    """Of int8 and int4: numbers that share one scale."""
    kept: float | None = None
    """Share of each tensor's numbers that travel, the largest; the rest is added to the next
    difference. null: all."""


@dataclass(frozen=True, kw_only=True)
class CompressionConfig:
    """What is coded; null: weights travel whole, as float32."""

    up: CodecConfig | None = None
    """The sites' updates, as differences from the model of the round."""
    down: CodecConfig | None = None
    """The model of a round, as the difference from the last round's, for sites that have that."""

    def __post_init__(self) -> None:
        for side, codec in (("up", self.up), ("down", self.down)):
            if codec is not None:
                _check(f"compression.{side}", codec)


def _check(name: str, codec: CodecConfig) -> None:
    one_of(NUMBERS, **{f"{name}.numbers": codec.numbers})
    in_range(1, LARGEST_BLOCK, **{f"{name}.block": codec.block})
    if codec.kept is not None:
        positive(**{f"{name}.kept": codec.kept})
        in_range(0.0, 1.0, **{f"{name}.kept": codec.kept})
    elif codec.numbers == "float32":
        raise ValueError(
            f"{name}.numbers=float32 and {name}.kept=null code nothing; set {name} to null, or one "
            "of the two to something smaller"
        )
