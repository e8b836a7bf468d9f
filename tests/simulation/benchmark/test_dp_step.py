import pytest
import torch

from common.models.catalogue import CARDS
from simulation.benchmark.dp_step import Load, loads_of, step_of

LOADS = list(loads_of())


def test_every_network_has_a_row_for_the_axes_that_it_takes() -> None:
    names = [load.name for load in LOADS]
    assert len(names) == len(set(names))
    for name, card in CARDS.items():
        assert {f"{name}-{axes}d" for axes in card.dims} <= set(names)


@pytest.mark.parametrize("load", LOADS, ids=lambda load: load.name)
def test_a_row_has_a_network_that_takes_its_batch(load: Load) -> None:
    images = torch.zeros(1, *load.shape[1:])
    with torch.inference_mode():
        assert torch.isfinite(load.build().eval()(images)).all()


def test_a_private_step_changes_the_weights() -> None:
    load = next(load for load in LOADS if load.name == "cnn-2d")
    built: list[torch.nn.Module] = []

    def build() -> torch.nn.Module:
        built.append(load.build())
        return built[-1]

    noted = Load(name=load.name, build=build, shape=load.shape)
    step = step_of("ours", noted, torch.device("cpu"), amp=False)
    assert not isinstance(step, str)
    before = [parameter.detach().clone() for parameter in built[0].parameters()]
    step()
    after = list(built[0].parameters())
    assert any(not torch.equal(a, b) for a, b in zip(before, after, strict=True))


def test_what_opacus_cannot_train_is_a_reason_and_no_crash() -> None:
    # Its functorch takes the two answers of an attention for one.
    load = next(load for load in LOADS if load.name == "vit-2d")
    assert step_of("functorch", load, torch.device("cpu"), amp=False) == "TypeError"
    assert not isinstance(step_of("ours", load, torch.device("cpu"), amp=False), str)
