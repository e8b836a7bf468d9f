"""The server's step: an optimiser on the pseudo-gradient, the way from the mean to the model."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from common.framed_files import BLOCK
from common.state import State
from common.strategy_config import ServerOptimizerConfig

Moments = Mapping[str, Tensor]
"""The optimiser's memory, float64, named `<moment>/<parameter>`."""


def server_step(
    model: State,
    mean: dict[str, Tensor],
    moments: Moments,
    config: ServerOptimizerConfig,
    trained: frozenset[str],
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return the next model and the next moments.

    The pseudo-gradient of a trained parameter is w - mean (Reddi et al., ICLR 2021, Algorithm 1:
    it is -Delta_t). Names outside `trained` (running statistics, counters) take the mean as it is:
    an adaptive step would make a variance negative.

    model: the global model, in its own dtypes. mean: what weighted_mean returned, float64; it is
    used up, a tensor at a time, so that memory holds one model more at most.
    The step is taken in float64 and rounded once, so sgd with lr 1 gives the mean exactly.
    """
    following: dict[str, Tensor] = {}
    kept: dict[str, Tensor] = {}
    for name, weights in model.items():
        combined = mean.pop(name)
        if name not in trained:
            following[name] = combined.to(weights.dtype)
            continue
        own = {key.split("/", 1)[0]: t for key, t in moments.items() if key.endswith("/" + name)}
        following[name], memory = _stepped(weights, combined, own, config)
        kept.update({f"{moment}/{name}": tensor for moment, tensor in memory.items()})
    return following, kept


def _stepped(
    weights: Tensor, mean: Tensor, moments: Moments, config: ServerOptimizerConfig
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return a parameter's next value and moments; a block at a time, for its size in memory."""
    following = torch.empty_like(weights)
    kept: dict[str, Tensor] = {}
    for at in range(0, weights.numel(), BLOCK):
        block = slice(at, at + BLOCK)
        combined = mean.view(-1)[block]
        g = weights.view(-1)[block].to(torch.float64) - combined
        own = {moment: tensor.view(-1)[block] for moment, tensor in moments.items()}
        change, memory = _STEPS[config.name](g, own, config)
        # Not w - change: that is the mean only to the digits of w.
        following.view(-1)[block] = (combined + (g - change)).to(weights.dtype)
        for moment, values in memory.items():
            kept.setdefault(moment, torch.empty_like(mean)).view(-1)[block] = values
    return following, kept


def _sgd(g: Tensor, memory: Moments, config: ServerOptimizerConfig) -> tuple[Tensor, Moments]:
    if not config.momentum:
        return config.lr * g, {}
    m = config.momentum * memory.get("momentum", torch.zeros_like(g)) + g
    return config.lr * m, {"momentum": m}


def _adaptive(
    second_moment: Callable[[Tensor, Tensor, float], Tensor],
) -> Callable[[Tensor, Moments, ServerOptimizerConfig], tuple[Tensor, Moments]]:
    def step(g: Tensor, memory: Moments, config: ServerOptimizerConfig) -> tuple[Tensor, Moments]:
        m = config.beta1 * memory.get("first", torch.zeros_like(g)) + (1 - config.beta1) * g
        start = torch.full_like(g, config.tau**2)
        v = second_moment(memory.get("second", start), g.square(), config.beta2)
        return config.lr * m / (v.sqrt() + config.tau), {"first": m, "second": v}

    return step


def _adam_moment(v: Tensor, square: Tensor, beta2: float) -> Tensor:
    return beta2 * v + (1 - beta2) * square


def _yogi_moment(v: Tensor, square: Tensor, beta2: float) -> Tensor:
    return v - (1 - beta2) * square * torch.sign(v - square)


# FedAvg and FedAvgM (Hsu et al., 2019); FedAdam and FedYogi (Reddi et al., ICLR 2021, Algorithm 2,
# v_0 = tau^2, no bias correction).
_STEPS = {"sgd": _sgd, "adam": _adaptive(_adam_moment), "yogi": _adaptive(_yogi_moment)}
