"""The server's side of the network, and the one Strategy.

Federation asks sites and reads their answers, one at a time and in the order of the sites' names.
Strategy is composed from sampling, combiner and server optimiser; an algorithm is a YAML file.
"""

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TypeVar

from flwr.app import Message, MessageType, RecordDict
from flwr.serverapp import Grid
from torch import Tensor

from common.contract import (
    Description,
    EvaluateReply,
    Refusal,
    Request,
    StudyReference,
    TrainReply,
)
from common.messages import MessageError, pack_request, unpack_answer, unpack_weights
from common.state import Arrays, State, arrays_of
from common.study import StrategyConfig
from server.aggregation import weight_of, weighted_mean
from server.events import Tell
from server.optimizers import Moments, server_step
from server.sampling import cohort_of_round

POLL_S = 0.05
JOIN_TIMEOUT_S = 120.0
NOT_HERE = "did not introduce itself"


@dataclass(frozen=True)
class Missing:
    """Why a site has no part in a round."""

    reason: str


Answer = TrainReply | EvaluateReply | Description
Reply = TypeVar("Reply", TrainReply, EvaluateReply)


class Federation:
    """The sites of a study, by name, over a Flower grid."""

    def __init__(self, grid: Grid, study: StudyReference, tell: Tell) -> None:
        self._grid = grid
        self._study = study
        self._tell = tell
        self._node_of: dict[str, int] = {}

    def enrol(
        self, agreed: Sequence[str], timeout_s: float
    ) -> tuple[dict[str, Description], dict[str, str]]:
        """Ask every node who it is; return descriptions by site, and the agreed sites that lack.

        A node that was not agreed has no part in the study.

        A site reads and checks all its data before it answers; timeout_s must allow for it.

        Raises:
            ValueError: two nodes give the same site name.
        """
        nodes = self._nodes(len(agreed))
        request = pack_request(Request(study=self._study))
        found: dict[str, Description] = {}
        refused: dict[str, str] = {}
        keyed: dict[str, int | None] = {str(node): node for node in nodes}
        for _, answer, _ in self._ask(keyed, request, MessageType.QUERY, timeout_s):
            if isinstance(answer, (Description, Refusal)) and answer.site not in agreed:
                self._tell("stranger", site=answer.site)
            elif isinstance(answer, Description):
                self._admit(answer, found)
            elif isinstance(answer, Refusal):
                refused[answer.site] = f"{answer.code}: {answer.text}"
        self._node_of = {site: node for site, node in self._node_of.items() if site in found}
        absent = {s: refused.get(s, NOT_HERE) for s in agreed if s not in found}
        return dict(sorted(found.items())), absent

    def train(
        self,
        sites: Sequence[str],
        round_number: int,
        model: State,
        evaluate: bool,
        timeout_s: float,
    ) -> Iterator[tuple[str, TrainReply | Missing, Arrays]]:
        """Yield every site's update, in the order of the names; at most one is in memory."""
        request = Request(study=self._study, round=round_number, evaluate=evaluate)
        records = pack_request(request, arrays_of(model))
        nodes = {site: self._node_of.get(site) for site in sorted(sites)}
        for site, answer, weights in self._ask(nodes, records, MessageType.TRAIN, timeout_s):
            reply = self._expected(site, answer, TrainReply, round_number)
            self._tell("reply", site=site, round=round_number, why=getattr(reply, "reason", None))
            yield site, reply, weights

    def evaluate(
        self, sites: Sequence[str], round_number: int, model: State, timeout_s: float
    ) -> Iterator[tuple[str, EvaluateReply | Missing]]:
        """Yield every site's evaluation of the model, in the order of the names."""
        request = Request(study=self._study, round=round_number, evaluate=True)
        records = pack_request(request, arrays_of(model))
        nodes = {site: self._node_of.get(site) for site in sorted(sites)}
        for site, answer, _ in self._ask(nodes, records, MessageType.EVALUATE, timeout_s):
            reply = self._expected(site, answer, EvaluateReply, round_number)
            self._tell("evaluated", site=site, round=round_number)
            yield site, reply

    def _nodes(self, count: int) -> list[int]:
        deadline = time.monotonic() + JOIN_TIMEOUT_S
        nodes = list(self._grid.get_node_ids())
        while len(nodes) < count and time.monotonic() < deadline:
            time.sleep(POLL_S)
            nodes = list(self._grid.get_node_ids())
        return sorted(nodes)

    def _admit(self, about: Description, found: dict[str, Description]) -> None:
        if about.site in found:
            raise ValueError(
                f"two nodes call themselves {about.site!r}; give every site a name of its own"
            )
        found[about.site] = about

    def _ask(
        self, nodes: Mapping[str, int | None], records: RecordDict, kind: str, timeout_s: float
    ) -> Iterator[tuple[str, Answer | Refusal | Missing, Arrays]]:
        here = {name: node for name, node in nodes.items() if node is not None}
        messages = [Message(records, dst_node_id=node, message_type=kind) for node in here.values()]
        identifiers = dict(zip(here, self._grid.push_messages(messages), strict=True))
        deadline = time.monotonic() + timeout_s
        for name in nodes:
            if name not in here:
                # A resumed run knows sites of before that have not come back.
                yield name, Missing(NOT_HERE), {}
                continue
            message = self._pull(identifiers[name], deadline)
            if message is None:
                yield name, Missing(f"no answer within {timeout_s:g} s"), {}
                continue
            answer, weights = _read(message)
            if isinstance(answer, Description):
                self._node_of.setdefault(answer.site, here[name])
            yield name, answer, weights

    def _pull(self, identifier: str, deadline: float) -> Message | None:
        while True:
            for message in self._grid.pull_messages([identifier]):
                return message
            if time.monotonic() > deadline:
                return None
            time.sleep(POLL_S)

    def _expected(
        self, site: str, answer: Answer | Refusal | Missing, kind: type[Reply], round_number: int
    ) -> Reply | Missing:
        if isinstance(answer, kind):
            if answer.site != site or answer.round != round_number:
                return Missing(f"answered as {answer.site!r} for round {answer.round}")
            return answer
        if isinstance(answer, Refusal):
            return Missing(f"{answer.code}: {answer.text}")
        return answer if isinstance(answer, Missing) else Missing("answered another question")


def _read(message: Message) -> tuple[Answer | Refusal | Missing, Arrays]:
    if message.has_error():
        return Missing(f"the site's process failed (code {message.error.code})"), {}
    try:
        answer = unpack_answer(message.content)
        # Python's JSON reads NaN, but result.json may not hold one.
        json.dumps(asdict(answer), allow_nan=False)
        return answer, unpack_weights(message.content)
    except MessageError as error:
        return Missing(str(error)), {}
    except ValueError:
        return Missing("the answer tells something that is not a finite number"), {}


@dataclass(frozen=True)
class Strategy:
    """Sampling, combiner and server optimiser of a study."""

    config: StrategyConfig
    seed: int
    trained: frozenset[str]
    """Names of the parameters; all other tensors of the state are statistics or counters."""

    def cohort(self, sites: Sequence[str], round_number: int) -> list[str]:
        """Return the sites asked to train in the round."""
        return cohort_of_round(sites, self.config.fraction, self.seed, round_number)

    def combine(self, updates: Iterator[tuple[Arrays, int]]) -> dict[str, Tensor] | None:
        """Return the combined update, float64, from weights and training patients a site.

        None where no site handed one in.
        """
        weight_by = self.config.weight_by
        return weighted_mean((arrays, weight_of(n, weight_by)) for arrays, n in updates)

    def step(
        self, model: State, combined: State, moments: Moments
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Return the next model and the next moments of the server optimiser."""
        return server_step(model, combined, moments, self.config.server_optimizer, self.trained)
