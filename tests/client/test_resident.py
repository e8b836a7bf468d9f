from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from client.resident import composed, new_network, resident
from client.trainer import trainer_at
from common.state import State, state_of
from tests.builders import PICTURES, PRIVATE, initial_weights, pictures_site, request_for

CPU = torch.device("cpu")
BATCH_NORM = ("model.norm=batch", "model.batch_norm_policy=local")


def same(one: State, other: State) -> bool:
    return list(one) == list(other) and all(one[name].equal(other[name]) for name in one)


def hung_on(network: nn.Module) -> list[Mapping[str, Any]]:
    """Return what hangs on each part of a network besides its weights, by name of what it is."""
    parts = [
        {name: repr(value) for name, value in vars(module).items() if name[:1] != "_"}
        | {name: len(value) for name, value in vars(module).items() if name.endswith("_hooks")}
        for module in network.modules()
    ]
    tensors = [
        {**vars(tensor), "grad": tensor.grad, "trained": tensor.requires_grad}
        for tensor in network.parameters()
    ]
    return [*parts, *tensors]


@pytest.mark.parametrize("more", [(), PRIVATE, BATCH_NORM, ("model.trained=[head]",)])
def test_after_any_training_it_is_as_new(tmp_path: Path, more: tuple[str, ...]) -> None:
    overrides = (*PICTURES, *more)
    trainer = trainer_at(pictures_site(tmp_path / "a", train=3, test=1))
    request = request_for(*overrides)
    trainer.evaluate(request, initial_weights(*overrides))
    trainer.train(request, initial_weights(*overrides))
    kept = resident(tuple(request.study.overrides), CPU)
    fresh = new_network(composed(tuple(request.study.overrides)))
    assert not same(state_of(kept.network), state_of(fresh))
    network = kept.as_new()
    assert network is kept.network
    assert same(state_of(network), state_of(fresh))
    assert hung_on(network) == hung_on(fresh)


def test_messages_of_one_study_have_one_network_and_another_studys_takes_its_place() -> None:
    one, other = PICTURES, (*PICTURES, "training.lr=0.5")
    first = resident(one, CPU)
    assert resident(one, CPU) is first
    assert resident(other, CPU) is not first
    assert resident(one, CPU) is not first
