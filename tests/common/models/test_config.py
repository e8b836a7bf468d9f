import pytest

from common.models.config import ModelConfig


@pytest.mark.parametrize("norm", ["group", "instance"])
def test_policy_without_batch_norm_is_refused(norm: str) -> None:
    with pytest.raises(ValueError, match=r"batch_norm_policy=local has no effect.*norm=batch"):
        ModelConfig(name="any", norm=norm, batch_norm_policy="local")


def test_batch_norm_needs_a_policy() -> None:
    with pytest.raises(ValueError, match=r"policy=average or local.*with privacy.*group"):
        ModelConfig(name="any", norm="batch")


@pytest.mark.parametrize(
    "wrong",
    [
        {"spatial_dims": 4},
        {"norm": "layer"},
        {"in_channels": 0},
        {"out_channels": 0},
        {"norm_groups": 0},
        {"dropout": 1.0},
    ],
)
def test_impossible_values_are_named(wrong: dict[str, int | float | str]) -> None:
    (name,) = wrong
    with pytest.raises(ValueError, match=rf"model\.{name}="):
        ModelConfig(name="any", **wrong)  # type: ignore[arg-type]
