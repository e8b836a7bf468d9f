"""The engine of resident Ray actors, on one machine or on a cluster.

Flower's own simulation engine looks for messages every 0.1 s at both ends, pickles the model once a
client, and puts an actor that died back into its pool, where every message to it is lost. Here the
weights go into Ray's object store once a round and are read there without a copy; an actor that
died is replaced, and its hospital asked again.
"""

import itertools
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import ray
from flwr.app import Error, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.common.constant import ErrorCode
from numpy.typing import NDArray
from ray.actor import ActorHandle
from ray.exceptions import RayError, RayTaskError

from common.messages import WEIGHTS, framed_weights, put_in
from server.calls import LONGEST_REASON
from server.events import Tell
from simulation.engines.grid import answered, identify, partition_of
from simulation.engines.resources import Resources, begin

ATTEMPTS = 3
"""How often a hospital is asked whose actor dies over it."""
SHARE_OF_STORE = 0.5
"""Of the object store, for answers that wait for their turn; above it, Ray would write to disk."""
SHORT_S = 0.1
"""An actor that answers so fast gets the next message before it has answered."""

Stored = NDArray[np.uint8]
"""Weights as bytes, which Ray shares between processes without a copy."""
Worked = tuple[RecordDict | None, Stored | None, int]
"""The records of an answer but for the weights, these, and the code of an error if it is one."""


@dataclass(eq=False)
class _Job:
    message: Message
    weights: Any
    """Where they lie in the object store; None where none travel."""
    attempts: int = 0
    reply: Any = None
    """Where the answer will lie, while it is worked on."""
    began: float = 0.0
    answer: Worked | None = None

    @property
    def partition(self) -> int:
        return partition_of(self.message.metadata.dst_node_id)


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
        self._at: list[list[_Job]] = [[] for _ in self._actors]
        """The jobs at each actor, in the order in which it does them."""
        self._home: dict[int, int] = {}
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
        jobs = []
        for message in messages:
            framed = framed_weights(message.content)
            if framed is not None and id(framed) not in put:
                put[id(framed)] = ray.put(np.frombuffer(framed, np.uint8))
            self._longest = max(self._longest, len(framed or b""))
            jobs.append(_Job(message, None if framed is None else put[id(framed)]))
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
        if not self._all_fit() and job in self._queue:
            # Whatever else is held: only this answer makes room.
            self._queue.remove(job)
            self._queue.insert(0, job)
        while job.answer is None:
            self._hand_out(job)
            self._take_in()
        del self._jobs[identifier]
        self._held -= 1
        self._hand_out()
        return _message(job.answer, job.message)

    def end(self) -> None:
        """End the actors; a cluster goes on."""
        ray.shutdown()

    def _take_in(self) -> None:
        """Wait for an answer and take in what is there."""
        places = {job.reply: place for place, at in enumerate(self._at) for job in at}
        done, _ = ray.wait(list(places))
        for reply in done:
            self._take_from(places[reply])

    def _take_from(self, place: int) -> None:
        """Take in an actor's answers, in the order in which it works; or replace it."""
        at = self._at[place]
        while at and ray.wait([at[0].reply], timeout=0)[0]:
            job = at[0]
            try:
                job.answer = ray.get(job.reply)
            except RayTaskError as error:
                # The actor lives; the answer could not be sent.
                job.answer = None, None, ErrorCode.CLIENT_APP_RAISED_EXCEPTION
                self._tell("no answer", partition=job.partition, why=_why(error))
            except RayError as error:
                self._replace(place, error)
                return
            at.remove(job)
            _, framed, _ = job.answer
            self._longest = max(self._longest, 0 if framed is None else len(framed))
            self._ahead = 2 if time.monotonic() - job.began < SHORT_S else 1

    def _replace(self, place: int, error: RayError) -> None:
        """Put another actor into the place of a dead one, and its hospitals back into the queue."""
        lost, self._at[place] = self._at[place], []
        # It died over the first, or over the second with the first one's answer still on its way.
        over, self._ahead = lost[0], 1
        over.attempts += 1
        self._tell(
            "actor died",
            partition=over.partition,
            attempt=over.attempts,
            of=ATTEMPTS,
            why=_why(error),
        )
        ray.kill(self._actors[place])
        self._actors[place] = self._actor()
        if over.attempts == ATTEMPTS:
            over.answer = None, None, ErrorCode.CLIENT_APP_CRASHED
            lost = lost[1:]
        self._held -= len(lost)
        self._queue[:0] = lost

    def _hand_out(self, awaited: _Job | None = None) -> None:
        """Give every actor that has room for one its next message, the awaited one in any case."""
        for count in range(self._ahead):
            for place, at in enumerate(self._at):
                if len(at) != count or not self._queue:
                    continue
                if self._held < self._most_held or self._queue[0] is awaited:
                    self._begin_job(place, self._next(place))

    def _begin_job(self, place: int, job: _Job) -> None:
        about = job.message.metadata
        records = _without_weights(job.message.content)
        job.began = time.monotonic()
        job.reply = self._actors[place].work.remote(
            about.dst_node_id, about.message_type, records, job.weights
        )
        self._at[place].append(job)
        self._home[job.partition] = place
        self._held += 1

    def _next(self, place: int) -> _Job:
        """Take the first out of the queue; or one behind it, if that one is at home here."""
        at = 0
        if self._all_fit():
            homes = (self._home.get(job.partition, place) for job in self._queue)
            at = next((i for i, home in enumerate(homes) if home == place), 0)
        return self._queue.pop(at)

    def _all_fit(self) -> bool:
        return len(self._jobs) <= self._most_held

    def _actor(self) -> ActorHandle[Any]:
        options: dict[str, Any] = {"num_cpus": 1, "num_gpus": self._resources.gpus_per_actor}
        if self._resources.address is not None:
            # Where Ray is started here, its processes have this one's environment.
            options["runtime_env"] = {"env_vars": dict(self._resources.environment)}
            options["scheduling_strategy"] = "SPREAD"
        return _Actor.options(**options).remote(self._client_app, self.num_nodes)


class _Worker:
    """A process that plays hospitals; what it keeps in memory is for speed, never for meaning."""

    def __init__(self, client_app: ClientApp, num_nodes: int) -> None:
        identify()
        self._client_app, self._num_nodes = client_app, num_nodes

    def work(self, node: int, kind: str, records: RecordDict, weights: Stored | None) -> Worked:
        """Return the ClientApp's answer to a message of this kind to the node."""
        if weights is not None:
            put_in(records, weights.data)
        answer = answered(self._client_app, Message(records, node, kind), self._num_nodes)
        if answer.has_error():
            return None, None, answer.error.code
        framed = framed_weights(answer.content)
        rest = _without_weights(answer.content)
        return rest, None if framed is None else np.frombuffer(framed, np.uint8), 0


_Actor: Any = ray.remote(_Worker)


def _without_weights(records: RecordDict) -> RecordDict:
    return RecordDict({name: record for name, record in records.items() if name != WEIGHTS})


def _why(error: RayError) -> str:
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[-1]}"[:LONGEST_REASON]


def _message(worked: Worked, question: Message) -> Message:
    records, framed, code = worked
    if records is None:
        return Message(Error(code), reply_to=question)
    if framed is not None:
        put_in(records, framed.data)
    return Message(records, reply_to=question)
