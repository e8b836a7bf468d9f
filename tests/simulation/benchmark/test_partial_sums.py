from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import ray

from server.aggregation import weighted_mean
from simulation.benchmark.partial_sums import (
    ACTORS,
    BLOCKS,
    CLIENTS,
    FRACTIONS,
    ONE_SUM,
    PATIENTS,
    Holder,
    _Actor,
    blocks,
    calls,
    mean_by,
    model_of,
    models_of,
    unlike,
    update,
)
from simulation.engines.resources import Resources, begin

MODEL = model_of(1000)


@pytest.fixture(scope="module")
def actors() -> Iterator[list[Any]]:
    begin(Resources(actors=ACTORS))
    yield [_Actor.remote(MODEL) for _ in range(ACTORS)]
    ray.shutdown()


@pytest.mark.parametrize("weights", [PATIENTS, FRACTIONS])
def test_every_way_is_the_mean_and_one_sum_has_the_servers_bytes(
    actors: list[Any], weights: tuple[float, ...]
) -> None:
    told = ((update(MODEL, client), weights[client]) for client in range(CLIENTS))
    mean = weighted_mean(told)
    assert mean is not None
    for way in BLOCKS:
        found = mean_by(way, actors, MODEL, weights)
        for name, tensor in mean.items():
            np.testing.assert_allclose(found[name], tensor.numpy(), rtol=1e-9, atol=1e-12)
        if way == ONE_SUM:
            assert all(found[name].tobytes() == mean[name].numpy().tobytes() for name in mean)


@pytest.mark.parametrize("most", [0, 1, 5, 1000])
def test_every_client_is_asked_once_and_in_order(most: int) -> None:
    asked = list(calls(most))
    assert [client for clients in asked for client in clients] == list(range(CLIENTS))
    assert all(len(clients) <= max(most, 1) for clients in asked)
    assert [client for clients in blocks(7) for client in clients] == list(range(CLIENTS))


def test_blocks_have_the_same_bytes_with_one_actor_and_with_two(actors: list[Any]) -> None:
    one, two = (mean_by("blocks_of_8", some, MODEL, FRACTIONS) for some in (actors[:1], actors))
    assert unlike(one, two) == 0.0


def test_sums_of_actors_are_other_bytes_where_weights_are_fractions(actors: list[Any]) -> None:
    apart, one = (mean_by(way, actors, MODEL, FRACTIONS) for way in ("two_actors", ONE_SUM))
    assert unlike(apart, one) > 0.0
    assert unlike(one, one) == 0.0


def test_an_update_that_is_none_ends_the_measurement() -> None:
    holder = Holder({**MODEL, "w0": np.full(1000, np.nan, np.float32)})
    with pytest.raises(ValueError, match="NaN"):
        holder.sums(range(2), PATIENTS)


def test_a_second_sum_takes_two_models_more() -> None:
    model = model_of(100_000)
    blocks = models_of(model, BLOCKS["blocks_of_8"])
    assert blocks - models_of(model, CLIENTS) == pytest.approx(2.0, abs=0.1)
