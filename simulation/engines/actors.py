"""The engine of resident Ray actors, on one machine or on a cluster.

Flower's own simulation engine looks for messages every 0.1 s at both ends, pickles the model once a
client, and puts an actor that died back into its pool, where every message to it is lost. Here the
weights go into Ray's object store once a round and are read there without a copy; short messages go
to an actor many in a call, as a call costs milliseconds of both processes; an actor that died is
replaced, and its hospitals asked again.

The server sums, and no actor: each update is read, checked and noted by its site before it counts,
as over a network, and float64 sums of sums would depend on who was summed where. What that costs:
python -m simulation.benchmark.partial_sums.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import ray
from flwr.app import Message, MessageType
from flwr.clientapp import ClientApp
from flwr.common.constant import ErrorCode
from ray.actor import ActorHandle
from ray.exceptions import RayError, RayTaskError

from common.contract import Request
from common.messages import framed_weights, unpack_request
from server.calls import LONGEST_REASON
from server.events import Tell
from simulation.engines.grid import partition_of
from simulation.engines.resources import Resources, begin
from simulation.engines.worker import Asked, Worked, Worker, message_of, without_weights

ATTEMPTS = 3
"""How often a hospital is asked whose actor dies over it."""
SHARE_OF_STORE = 0.5
"""Of the object store, for answers that wait for their turn; above it, Ray would write to disk."""
SHORT_S = 0.1
"""An actor that ends a call so fast has the next before; and of short messages a call takes so many
as together last so long."""
CALL_S = 0.005
"""What a call itself costs both processes, about (python -m simulation.benchmark.engine)."""
CALL_BYTES = 2**25
"""Of the weights in a call's answers, unless one alone has more: an actor holds them all."""


_What = tuple[str, bool, bool, int]
"""Kind of message, whether it asks for an evaluation and for a comparison, and the hospital."""


@dataclass(eq=False)
class _Job:
    message: Message
    weights: Any
    """Where they lie in the object store; None where none travel."""
    what: _What
    attempts: int = 0
    answer: Worked | None = None

    @property
    def partition(self) -> int:
        return partition_of(self.message.metadata.dst_node_id)


@dataclass(eq=False)
class _Call:
    jobs: list[_Job]
    reply: Any
    """Where the answers will lie."""


class Actors:
    """Works messages off on resident actors.

    The largest hospitals first (they have the first places), so that none of them begins last, and
    each where it was before, if that actor is free: its images are there. But where the answers
    would not all fit into memory: in the order in which they are pulled, and so many ahead.
    """

    def __init__(
        self, client_app: ClientApp, num_nodes: int, resources: Resources, tell: Tell
    ) -> None:
        self.num_nodes = num_nodes
        self._resources, self._tell = resources, tell
        begin(resources)
        self._client_app = ray.put(client_app)
        self._actors = [self._actor() for _ in range(resources.actors)]
        self._at: list[list[_Call]] = [[] for _ in self._actors]
        """The calls of each actor, in the order in which it does them."""
        self._home: dict[int, int] = {}
        self._took_s: dict[_What, tuple[float, ...]] = {}
        """By what a job is: how long the last two took."""
        self._jobs: dict[str, _Job] = {}
        self._queue: list[_Job] = []
        self._held = 0
        """Jobs that are at an actor, or answered and not pulled."""
        self._numbers = itertools.count()
        # All answers come to this process's machine.
        stores = [node["Resources"].get("object_store_memory", 0.0) for node in ray.nodes()]
        self._store_bytes = min(stores)
        self._most_held = self._ahead = self._longest = 1

    def push(self, messages: Sequence[Message]) -> list[str]:
        """Take the messages in and begin with the first."""
        put: dict[int, Any] = {}
        asked: dict[int, Request] = {}
        jobs = []
        for message in messages:
            framed = framed_weights(message.content)
            if framed is not None and id(framed) not in put:
                put[id(framed)] = ray.put(np.frombuffer(framed, np.uint8))
            self._longest = max(self._longest, len(framed or b""))
            weights = None if framed is None else put[id(framed)]
            # Most hospitals are asked in the same words.
            words = id(message.content)
            if words not in asked:
                asked[words] = unpack_request(message.content)
            jobs.append(_Job(message, weights, _what(message, asked[words])))
        identifiers = [str(next(self._numbers)) for _ in jobs]
        self._jobs |= zip(identifiers, jobs, strict=True)
        # An update is about as long as the weights that it is the answer to, or the last ones.
        fit = int(SHARE_OF_STORE * self._store_bytes / self._longest)
        self._most_held = max(fit, 2 * len(self._actors))
        if self._all_fit():
            jobs.sort(key=lambda job: job.partition)
        self._queue.extend(jobs)
        self._hand_out()
        return identifiers

    def pull(self, identifier: str) -> Message | None:
        """Return the answer; wait for it as long as it takes, as one process would."""
        job = self._jobs.get(identifier)
        if job is None:
            return None
        while job.answer is None:
            if not self._all_fit() and job in self._queue:
                # Whatever else is held: only this answer makes room.
                self._queue.remove(job)
                self._queue.insert(0, job)
            self._hand_out(job)
            self._take_in()
        del self._jobs[identifier]
        self._held -= 1
        self._hand_out()
        return message_of(job.answer, job.message)

    def end(self) -> None:
        """End the actors; a cluster goes on."""
        ray.shutdown()

    def _take_in(self) -> None:
        """Wait for an answer and take in what is there."""
        places = {call.reply: place for place, at in enumerate(self._at) for call in at}
        done, _ = ray.wait(list(places))
        for reply in done:
            self._take_from(places[reply])

    def _take_from(self, place: int) -> None:
        """Take in an actor's answers, in the order in which it works; or replace it."""
        at = self._at[place]
        while at and ray.wait([at[0].reply], timeout=0)[0]:
            call = at[0]
            try:
                worked = ray.get(call.reply)
            except RayTaskError as error:
                # The actor lives; the answers could not be sent.
                at.remove(call)
                self._unsent(call.jobs, error)
                continue
            except RayError as error:
                self._replace(place, error)
                return
            at.remove(call)
            for job, answer in zip(call.jobs, worked, strict=True):
                job.answer = answer
                self._note(job, answer)
                self._longest = max(self._longest, answer.length)
            self._ahead = 2 if sum(answer.seconds for answer in worked) < SHORT_S else 1

    def _note(self, job: _Job, answer: Worked) -> None:
        """Note how long a job took; a refusal or an error tells nothing of it."""
        trains = job.message.metadata.message_type == MessageType.TRAIN
        if answer.error or (trains and not answer.length):
            return
        self._took_s[job.what] = (*self._took_s.get(job.what, ()), answer.seconds)[-2:]

    def _unsent(self, jobs: list[_Job], error: RayError) -> None:
        """Ask each of several hospitals again, alone: one's answer may have kept back all."""
        if len(jobs) > 1:
            self._blame(jobs)
            self._put_back(jobs)
            return
        jobs[0].answer = Worked(error=ErrorCode.CLIENT_APP_RAISED_EXCEPTION)
        self._tell("no answer", partition=jobs[0].partition, why=_why(error))

    def _replace(self, place: int, error: RayError) -> None:
        """Put another actor into the place of a dead one, and its hospitals back into the queue."""
        (over, *behind), self._at[place] = self._at[place], []
        # It died over the first call, or over the second with those answers still on their way.
        self._ahead = 1
        ray.kill(self._actors[place])
        self._actors[place] = self._actor()
        for call in reversed(behind):
            self._put_back(call.jobs)
        self._blame(over.jobs)
        attempt = over.jobs[0].attempts
        self._tell(
            "actor died",
            partitions=[job.partition for job in over.jobs],
            attempt=attempt,
            of=ATTEMPTS,
            why=_why(error),
        )
        if attempt < ATTEMPTS:
            self._put_back(over.jobs)
            return
        # After the first attempt a job is alone in its call.
        (job,) = over.jobs
        job.answer = Worked(error=ErrorCode.CLIENT_APP_CRASHED)

    def _blame(self, jobs: list[_Job]) -> None:
        """Have jobs go alone from here on, and in rounds to come until they were well twice."""
        for job in jobs:
            job.attempts += 1
            self._took_s.pop(job.what, None)

    def _put_back(self, jobs: list[_Job]) -> None:
        self._held -= len(jobs)
        self._queue[:0] = jobs

    def _hand_out(self, awaited: _Job | None = None) -> None:
        """Give every actor that has room for one its next call, the awaited message in any case."""
        for count in range(self._ahead):
            for place, at in enumerate(self._at):
                if len(at) != count or not self._queue:
                    continue
                if self._held < self._most_held or self._queue[0] is awaited:
                    self._begin_call(place, self._next_ones(place))

    def _begin_call(self, place: int, jobs: list[_Job]) -> None:
        weights = list(dict.fromkeys(job.weights for job in jobs if job.weights is not None))
        asked: list[Asked] = []
        for job in jobs:
            about, records = job.message.metadata, without_weights(job.message.content)
            which = None if job.weights is None else weights.index(job.weights)
            asked.append((about.dst_node_id, about.message_type, records, which))
            self._home[job.partition] = place
        reply = self._actors[place].work.remote(asked, *weights)
        self._at[place].append(_Call(jobs, reply))
        self._held += len(jobs)

    def _next_ones(self, place: int) -> list[_Job]:
        """Take a call's jobs out of the queue: one, or short ones that leave enough for others."""
        # The fewer are left, the fewer in a call, so that all actors end at the same time; but what
        # is shorter than a call itself is not worth one.
        fair = len(self._queue) // (2 * len(self._actors))
        most = min(self._most_held - self._held, CALL_BYTES // self._longest)
        jobs = [self._queue.pop(self._first_at_home(place) or 0)]
        took_s = self._expected_s(jobs[0])
        while len(jobs) < most:
            at = self._first_at_home(place)
            if at is None:
                # Others are short where they are at home.
                break
            took_s += self._expected_s(self._queue[at])
            if took_s >= (SHORT_S if len(jobs) < fair else CALL_S):
                break
            jobs.append(self._queue.pop(at))
        return jobs

    def _expected_s(self, job: _Job) -> float:
        """Return how long a job will take by the last two like it; for ever if it goes alone.

        One alone may have been short by chance: a site that is asked again may have its answer.
        """
        took_s = self._took_s.get(job.what, ())
        return max(took_s) if len(took_s) == 2 and not job.attempts else math.inf

    def _first_at_home(self, place: int) -> int | None:
        """Return where in the queue the first is that is at home here, or anywhere in order."""
        if not self._all_fit():
            return 0 if self._queue else None
        homes = (self._home.get(job.partition, place) for job in self._queue)
        return next((at for at, home in enumerate(homes) if home == place), None)

    def _all_fit(self) -> bool:
        return len(self._jobs) <= self._most_held

    def _actor(self) -> ActorHandle[Any]:
        options: dict[str, Any] = {"num_cpus": 1, "num_gpus": self._resources.gpus_per_actor}
        if self._resources.address is not None:
            # Where Ray is started here, its processes have this one's environment.
            options["runtime_env"] = {"env_vars": dict(self._resources.environment)}
            options["scheduling_strategy"] = "SPREAD"
        return _Actor.options(**options).remote(self._client_app, self.num_nodes)


_Actor: Any = ray.remote(Worker)


def _what(message: Message, asked: Request) -> _What:
    about = message.metadata
    return about.message_type, asked.evaluate, asked.compare, partition_of(about.dst_node_id)


def _why(error: RayError) -> str:
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[-1]}"[:LONGEST_REASON]
