"""What sums made by the actors would win and cost: a prototype of what the engine does not do.

    python -m simulation.benchmark.partial_sums [--json] [--quick]

Two Ray actors have the updates of 96 clients at hand, and there is nothing else of a platform: what
is saved here is the most that could be.
`one_sum` hands each update to this process, framed as in a message; it checks them and sums them in
order, as the server does. In the other ways an actor checks and sums so many neighbours' updates in
order and hands in that sum in float64, and this process adds the sums in order: of two or four
actors' whole shares, or of blocks of eight clients, which are the same with any number of actors.
`ms` is a client's share of a round, the median of five turns, `saved_ms` what it is less than
`one_sum`. `unlike` is how many numbers of a million of the mean differ from those of `one_sum`
where a site counts for its patients, `unlike_q` where it counts for a fraction, as with
strategy.fairness_q. `models` is what the same sums take of a server over a network, which must make
them itself to have the same bytes: the most memory for them, in models of float32.
"""

import sys
import time
import tracemalloc
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from statistics import median
from typing import Any

import numpy as np
import ray
from numpy.typing import NDArray

from common.framing import arrays_in, framed
from common.kept_memory import keep_freed_memory
from common.state import Arrays, arrays_of
from server.aggregation import refusal_of, weighted_mean, weighted_sums
from simulation.benchmark.table import Row, begin_with_environment, by_turns, run_benchmark
from simulation.engines.actors import CALL_BYTES
from simulation.engines.resources import Resources, begin

CLIENTS, ACTORS, AHEAD = 96, 2, 2
WORTH_A_CALL = 8
"""Of messages without work (simulation/engines/actors.py, CALL_S)."""
SIZES_MB, SIZES_QUICK_MB = (1, 4, 30), (1,)
TENSORS, TURNS = 16, 5
ONE_SUM = "one_sum"
BLOCKS: Mapping[str, int] = {
    ONE_SUM: CLIENTS,
    "two_actors": CLIENTS // 2,
    "four_actors": CLIENTS // 4,
    "blocks_of_8": 8,
}
"""By way: how many clients' updates become one sum."""
PATIENTS = tuple(10.0 + client % 7 for client in range(CLIENTS))
FRACTIONS = tuple(patients * (1 + client) ** -0.5 for client, patients in enumerate(PATIENTS))
"""What each client's update counts for."""
Model = dict[str, NDArray[np.float32]]
Sums = dict[str, NDArray[Any]]


def main() -> None:
    """Measure each way and size, and print the rows."""
    begin_with_environment()
    about = f"{CLIENTS} updates summed here, or by {ACTORS} actors: milliseconds a client"
    run_benchmark("partial_sums", about, rows_of, sys.argv[1:])


def rows_of(quick: bool) -> list[Row]:
    """Return one row a way and size."""
    # As the processes of a simulation do.
    keep_freed_memory()
    begin(Resources(actors=ACTORS))
    try:
        sizes_mb = SIZES_QUICK_MB if quick else SIZES_MB
        return [row for mb in sizes_mb for row in rows_of_size(mb, 1 if quick else TURNS)]
    finally:
        ray.shutdown()


def rows_of_size(megabytes: int, turns: int) -> list[Row]:
    """Return one row a way. Ray must have been started."""
    model = model_of(megabytes * 10**6 // (4 * TENSORS))
    actors = [_Actor.remote(model) for _ in range(ACTORS)]
    ways = {way: partial(mean_by, way, actors, model) for way in BLOCKS}
    means = {way: mean(PATIENTS) for way, mean in ways.items()}
    fair = {way: mean(FRACTIONS) for way, mean in ways.items()}
    timed = {way: partial(mean, PATIENTS) for way, mean in ways.items()}
    seconds = by_turns(timed, turns, time.perf_counter)
    for actor in actors:
        ray.kill(actor)
    ms = {way: 1000 * median(taken) / CLIENTS for way, taken in seconds.items()}
    return [
        {
            "name": f"{way}@{CLIENTS}x{megabytes}MB",
            "ms": ms[way],
            "saved_ms": ms[ONE_SUM] - ms[way],
            "unlike": unlike(means[way], means[ONE_SUM]),
            "unlike_q": unlike(fair[way], fair[ONE_SUM]),
            "models": models_of(model, block),
        }
        for way, block in BLOCKS.items()
    ]


class Holder:
    """What has the clients' updates at hand."""

    def __init__(self, model: Model) -> None:
        keep_freed_memory()
        self._model = model

    def updates(self, clients: range) -> list[NDArray[np.uint8]]:
        """Return each client's update as it travels."""
        return [np.frombuffer(framed(update(self._model, c)), np.uint8) for c in clients]

    def sums(self, clients: range, weights: Sequence[float]) -> Sums:
        """Return the sum of the clients' updates, each times its weight."""
        told = ((update(self._model, client), weights[client]) for client in clients)
        return weighted_sums(checked(told, self._model))[0]


_Actor: Any = ray.remote(Holder)


def mean_by(way: str, actors: Sequence[Any], model: Model, weights: Sequence[float]) -> Sums:
    """Return the weighted mean of all clients' updates, made in a way of BLOCKS."""
    if way != ONE_SUM:
        return mean_of(answers(actors, "sums", blocks(BLOCKS[way]), weights), weights)
    most = CALL_BYTES // sum(array.nbytes for array in model.values())
    wholes = (whole for some in answers(actors, "updates", calls(most)) for whole in some)
    told = ((arrays_in(whole.data), weight) for whole, weight in zip(wholes, weights, strict=True))
    mean = weighted_mean(checked(told, model))
    assert mean is not None  # there are clients
    return arrays_of(mean)


def answers(
    actors: Sequence[Any], what: str, asked: Iterable[range], *about: object
) -> Iterator[Any]:
    """Yield what the actors return for the clients of each call, in order; AHEAD wait at each."""
    waiting: deque[Any] = deque()
    for place, clients in enumerate(asked):
        if len(waiting) == AHEAD * len(actors):
            yield ray.get(waiting.popleft())
        call = getattr(actors[place % len(actors)], what)
        waiting.append(call.remote(clients, *about))
    while waiting:
        yield ray.get(waiting.popleft())


def blocks(length: int) -> list[range]:
    """Return the clients of each block."""
    return [range(first, min(first + length, CLIENTS)) for first in range(0, CLIENTS, length)]


def calls(most: int) -> Iterator[range]:
    """Yield the clients of each call, about as the engine does: fewer, the fewer are left."""
    first = 0
    while first < CLIENTS:
        fair = max((CLIENTS - first) // (2 * ACTORS), WORTH_A_CALL)
        clients = range(first, min(first + max(min(most, fair), 1), CLIENTS))
        yield clients
        first = clients.stop


def mean_of(parts: Iterable[Sums], weights: Sequence[float]) -> Sums:
    """Return the mean from sums, added in order; they are used up. weights: of all clients."""

    def noted() -> Iterator[tuple[Sums, float]]:
        for sums in parts:
            yield sums, 1.0
            sums.clear()

    sums, _ = weighted_sums(noted())
    for array in sums.values():
        array /= sum(weights)
    return sums


def checked(told: Iterable[tuple[Arrays, float]], model: Model) -> Iterator[tuple[Arrays, float]]:
    """Yield each update that the server would take.

    Raises:
        ValueError: it would not take one.
    """
    for arrays, weight in told:
        why = refusal_of(arrays, model)
        if why is not None:
            raise ValueError(f"an update of this prototype is none: {why}")
        yield arrays, weight


def models_of(model: Model, length: int) -> float:
    """Return the most memory in which one process makes sums of so many, in models of float32."""
    holder, whole = Holder(model), sum(array.nbytes for array in model.values())
    tracemalloc.start()
    if length == CLIENTS:
        holder.sums(range(CLIENTS), PATIENTS)
    else:
        mean_of((holder.sums(clients, PATIENTS) for clients in blocks(length)), PATIENTS)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return peak / whole


def unlike(one: Sums, other: Sums) -> float:
    """Return how many numbers of a million differ."""
    differ = sum(np.count_nonzero(one[name] != array) for name, array in other.items())
    return 1e6 * differ / sum(array.size for array in other.values())


def model_of(numbers: int) -> Model:
    """Return a model of TENSORS tensors of so many numbers."""
    draws = np.random.default_rng(0)
    return {f"w{place}": draws.standard_normal(numbers, np.float32) for place in range(TENSORS)}


def update(model: Model, client: int) -> Model:
    """Return a client's update: the model's numbers, in tensors turned round. No copy."""
    names = list(model)
    shift = client % len(names)
    return dict(zip(names, (model[n] for n in names[shift:] + names[:shift]), strict=True))


if __name__ == "__main__":
    main()
