import math

import pytest
import torch

from common.tasks.task import check_finite


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_diverged_model_is_named_as_such(value: float) -> None:
    with pytest.raises(ValueError, match=r"training has diverged; lower training\.lr"):
        check_finite(torch.tensor([0.5, value]))


def test_finite_probabilities_pass() -> None:
    check_finite(torch.tensor([0.0, 1.0]))
