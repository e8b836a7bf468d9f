from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from common.strategy_config import ServerOptimizerConfig
from server.optimizers import server_step

TRAINED = frozenset({"w"})
FLOATS = st.floats(-(2.0**99), 2.0**99, width=32)
ROUNDS = 5


def means(seed: int) -> Sequence[torch.Tensor]:
    draws = torch.Generator().manual_seed(seed)
    return [torch.randn(6, generator=draws, dtype=torch.float64) for _ in range(ROUNDS)]


def walked(config: ServerOptimizerConfig, start: torch.Tensor, seed: int) -> torch.Tensor:
    model, moments = {"w": start}, {}
    for mean in means(seed):
        model, moments = server_step(model, {"w": mean}, moments, config, TRAINED)
    return model["w"]


@given(w=FLOATS, values=st.lists(FLOATS, min_size=1, max_size=4))
@example(w=1.0, values=[1e-20])
@example(w=0.3, values=[1.0, float(np.nextafter(np.float32(1), np.float32(2)))])
def test_sgd_of_lr_one_gives_the_mean_bit_for_bit(w: float, values: list[float]) -> None:
    mean = torch.tensor(values, dtype=torch.float64).mean(0, keepdim=True)
    model = {"w": torch.tensor([w], dtype=torch.float32)}
    following, moments = server_step(model, {"w": mean}, {}, ServerOptimizerConfig(), TRAINED)
    assert following["w"].dtype == torch.float32
    # Not bytes: -0.0 equals 0.0.
    assert torch.equal(following["w"], mean.float())
    assert moments == {}


@pytest.mark.parametrize(("lr", "momentum"), [(0.5, 0.0), (1.0, 0.9), (0.3, 0.5)])
def test_sgd_with_momentum_is_torchs_on_the_pseudo_gradient(lr: float, momentum: float) -> None:
    config = ServerOptimizerConfig(lr=lr, momentum=momentum)
    start = torch.linspace(-1, 1, 6, dtype=torch.float64)
    theirs = start.clone().requires_grad_()
    optimizer = torch.optim.SGD([theirs], lr, momentum=momentum)
    for mean in means(1):
        theirs.grad = theirs.detach() - mean
        optimizer.step()
    torch.testing.assert_close(walked(config, start, 1), theirs.detach(), rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", ["adam", "yogi"])
def test_adaptive_steps_are_reddi_algorithm_2(name: str) -> None:
    config = ServerOptimizerConfig(name=name, lr=0.1, beta1=0.8, beta2=0.95, tau=1e-2)
    x = np.linspace(-1, 1, 6)
    m, v = np.zeros(6), np.full(6, 1e-2**2)
    for mean in means(2):
        delta = mean.numpy() - x
        m = 0.8 * m + 0.2 * delta
        if name == "adam":
            v = 0.95 * v + 0.05 * delta**2
        else:
            v = v - 0.05 * delta**2 * np.sign(v - delta**2)
        x = x + 0.1 * m / (np.sqrt(v) + 1e-2)
    found = walked(config, torch.linspace(-1, 1, 6, dtype=torch.float64), 2)
    np.testing.assert_allclose(found.numpy(), x, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", ["sgd", "adam", "yogi"])
def test_names_that_are_not_trained_take_the_mean(name: str) -> None:
    config = ServerOptimizerConfig(name=name, lr=0.1)
    model = {
        "w": torch.zeros(2),
        "running_var": torch.ones(2),
        "num_batches_tracked": torch.tensor(3),
    }
    mean = {
        "w": torch.ones(2, dtype=torch.float64),
        "running_var": torch.tensor([0.25, 4.0], dtype=torch.float64),
        "num_batches_tracked": torch.tensor(7),
    }
    following, moments = server_step(model, mean, {}, config, TRAINED)
    assert following["running_var"].tolist() == [0.25, 4.0]
    assert following["running_var"].dtype == torch.float32
    assert torch.equal(following["num_batches_tracked"], torch.tensor(7))
    assert all(key.endswith("/w") for key in moments)


def test_moments_of_one_parameter_are_not_anothers() -> None:
    # A name may end like another one.
    config = ServerOptimizerConfig(momentum=0.9)
    trained = frozenset({"a.w", "w"})
    model = {"a.w": torch.zeros(1), "w": torch.zeros(1)}
    mean = {"a.w": torch.ones(1).double(), "w": torch.zeros(1).double()}
    _, moments = server_step(model, mean, {}, config, trained)
    assert float(moments["momentum/a.w"]) == -1.0
    assert float(moments["momentum/w"]) == 0.0


def test_a_step_leaves_the_model_as_it_was() -> None:
    model = {"w": torch.zeros(2)}
    server_step(model, {"w": torch.ones(2).double()}, {}, ServerOptimizerConfig(), TRAINED)
    assert torch.equal(model["w"], torch.zeros(2))
