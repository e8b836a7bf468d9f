from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from client.progress import StoppedError
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


def settings_of(*more: str) -> tuple[str, ...]:
    return tuple(request_for(*PICTURES, *more).study.overrides)


@pytest.mark.parametrize("more", [(), PRIVATE, BATCH_NORM, ("model.trained=[head]",)])
def test_after_any_training_it_is_as_new(tmp_path: Path, more: tuple[str, ...]) -> None:
    overrides = (*PICTURES, *more)
    with resident(settings_of(*more), CPU) as first:
        pass
    trainer = trainer_at(pictures_site(tmp_path / "a", train=3, test=1))
    request = request_for(*overrides)
    trainer.evaluate(request, initial_weights(*overrides))
    trainer.train(request, initial_weights(*overrides))
    fresh = new_network(composed(settings_of(*more)))
    # Trained weights stay, of gradients nothing.
    assert not same(state_of(first.network), state_of(fresh))
    assert hung_on(first.network.eval()) == hung_on(fresh.eval())
    with resident(settings_of(*more), CPU) as again:
        assert again is first
        assert same(state_of(again.network), state_of(fresh))
        assert hung_on(again.network) == hung_on(fresh.train())


def test_another_studys_takes_its_place() -> None:
    with resident(settings_of(), CPU) as first:
        pass
    with resident(settings_of("training.lr=0.5"), CPU):
        pass
    with resident(settings_of(), CPU) as again:
        assert again is not first


def test_two_at_a_time_have_one_each() -> None:
    with resident(settings_of(), CPU) as one, resident(settings_of(), CPU) as other:
        assert one.network is not other.network


def test_what_an_error_left_behind_is_thrown_away(tmp_path: Path) -> None:
    with resident(settings_of(*PRIVATE), CPU) as first:
        pass

    def stop(_: int, __: int) -> None:
        raise StoppedError

    trainer = trainer_at(pictures_site(tmp_path / "a", train=3, test=1))
    with pytest.raises(StoppedError):
        trainer.train(request_for(*PICTURES, *PRIVATE), initial_weights(*PICTURES, *PRIVATE), stop)
    with resident(settings_of(*PRIVATE), CPU) as again:
        assert again is not first
