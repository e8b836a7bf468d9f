import pytest
import torch

from common.config import load_study
from common.models.registry import build_model
from simulation.benchmark.step_speed import LOADS, QUICK, STEPS, step_of


@pytest.mark.parametrize("name", QUICK)
def test_a_step_passes_forward_and_back_as_often_as_it_says(name: str) -> None:
    overrides, _ = LOADS[name]
    study = load_study(overrides)
    once, often = (build_model(study.model, study.seed) for _ in range(2))
    images = torch.randn(2, study.data.planes, 16, 16, generator=torch.manual_seed(0))
    torch.autograd.backward(once(images).square().mean())
    step_of(often, images, amp=False)()
    for one, other in zip(once.parameters(), often.parameters(), strict=True):
        assert one.grad is not None
        assert other.grad is not None
        torch.testing.assert_close(other.grad, STEPS * one.grad, rtol=1e-4, atol=1e-6)
