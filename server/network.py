"""The sites of a study, by name: who is there, and what each answers to the rounds' questions."""

import dataclasses
import functools
import time
from collections.abc import Iterator, Sequence
from typing import TypeVar

from flwr.app import MessageType, RecordDict
from flwr.serverapp import Grid

from common.contract import (
    NO_BASE,
    Answer,
    Description,
    EvaluateReply,
    Refusal,
    Request,
    StudyReference,
    TrainReply,
)
from common.messages import pack_request
from common.state import Arrays, State, arrays_of
from common.strategy_config import StrategyConfig
from server.calls import GONE, LOOK_S, NOT_HERE, Calls, Missing, StopError, Watch
from server.events import Tell
from server.stepping import Step

ASK_AGAIN_S = 5.0
"""How often a site that cannot take part yet is asked anew."""

Reply = TypeVar("Reply", TrainReply, EvaluateReply)


class Federation:
    """The sites of a study over a Flower grid.

    In a real federation a node was registered under its site's name, and that name counts. In a
    simulation the nodes have no names and say who they are.
    """

    def __init__(
        self, grid: Grid, study: StudyReference, tell: Tell, watch: Watch | None = None
    ) -> None:
        self._grid = grid
        self._study = study
        self._tell = tell
        self._watch = watch or Watch()
        self._weights = self._watch.weights
        self._introduced: dict[str, int] = {}
        self._calls = Calls(grid, self._nodes, self._watch, tell)

    def enrol(
        self, agreed: Sequence[str], limits: StrategyConfig
    ) -> tuple[dict[str, Description], dict[str, str]]:
        """Ask every site who it is; return descriptions by site, and the agreed sites that lack.

        A node that was not agreed has no part in the study. A site reads and checks all its data
        before it answers; the limits of a round must allow for it. In a real federation a site
        that is not there, or refuses, is asked again until the watch's join_timeout_s is over:
        its data officer may be reading the study just now.

        Raises:
            ValueError: two nodes give the same site name.
            StopError: the study is to be stopped.
        """
        deadline = time.monotonic() + self._watch.join_timeout_s
        if self._watch.presence is None:
            while len(list(self._grid.get_node_ids())) < len(agreed):
                if time.monotonic() > deadline:
                    break
                self._pause(self._watch.poll_s)
            return self._introductions(agreed, limits)
        found: dict[str, Description] = {}
        while True:
            absent = self._join(agreed, found, limits)
            left_s = deadline - time.monotonic()
            if not absent or left_s < 0:
                return dict(sorted(found.items())), absent
            self._tell("waiting", absent=absent, seconds_left=round(left_s))
            self._pause_for({site for site, why in absent.items() if why == GONE})

    def train(
        self,
        sites: Sequence[str],
        round_number: int,
        model: State,
        evaluate: bool,
        limits: StrategyConfig,
        step: Step | None = None,
        holders: set[str] | None = None,
    ) -> Iterator[tuple[str, TrainReply | Missing, Arrays]]:
        """Yield every site's update, in the order of the names; its weights hold until the next.

        step: to this model, for the holders of the one before; the others get it whole. So does a
        holder that has lost it, in the same round; it is then taken out of the holders.

        Raises:
            StopError: the study is to be stopped.
        """
        request = Request(study=self._study, round=round_number, evaluate=evaluate)

        @functools.cache
        def whole() -> RecordDict:
            return self._weights.packed(request, arrays_of(model))

        @functools.cache
        def onward() -> RecordDict:
            assert step is not None  # else nobody holds anything
            asked = dataclasses.replace(request, before=step.before)
            return self._weights.packed(asked, step.arrays)

        have = set() if holders is None else holders

        def records(site: str) -> RecordDict:
            return onward() if site in have else whole()

        for site, answer, weights in self._calls.ask(
            sorted(sites), records, MessageType.TRAIN, limits
        ):
            if site in have and isinstance(answer, Refusal) and answer.code == NO_BASE:
                have.discard(site)
                self._tell("lost", site=site, round=round_number)
                ((_, answer, weights),) = self._calls.ask(
                    [site], records, MessageType.TRAIN, limits
                )
            reply = _expected(site, answer, TrainReply, round_number)
            self._tell("reply", site=site, round=round_number, why=getattr(reply, "reason", None))
            yield site, reply, weights
            self._weights.used(site)

    def evaluate(
        self,
        sites: Sequence[str],
        round_number: int,
        model: State,
        limits: StrategyConfig,
        compare: bool = False,
    ) -> Iterator[tuple[str, EvaluateReply | Missing]]:
        """Yield every site's evaluation of the model, in the order of the names.

        compare: whether each site holds it against models of its own.

        Raises:
            StopError: the study is to be stopped.
        """
        request = Request(study=self._study, round=round_number, evaluate=True, compare=compare)
        records = self._weights.packed(request, arrays_of(model))
        for site, answer, _ in self._calls.ask(
            sorted(sites), lambda _: records, MessageType.EVALUATE, limits
        ):
            reply = _expected(site, answer, EvaluateReply, round_number)
            self._tell("evaluated", site=site, round=round_number)
            yield site, reply

    def _nodes(self) -> dict[str, int]:
        if self._watch.presence is None:
            return self._introduced
        return {node.name: node.node_id for node in self._grid.get_nodes() if node.name}

    def _introductions(
        self, agreed: Sequence[str], limits: StrategyConfig
    ) -> tuple[dict[str, Description], dict[str, str]]:
        """Ask nodes that have no names who they are."""
        numbered = {str(node): node for node in sorted(self._grid.get_node_ids())}
        self._introduced = numbered
        found: dict[str, Description] = {}
        refused: dict[str, str] = {}
        named: dict[str, int] = {}
        for number, answer in self._descriptions(list(numbered), limits):
            if isinstance(answer, (Description, Refusal)) and answer.site not in agreed:
                self._tell("stranger", site=answer.site)
            elif isinstance(answer, Refusal):
                refused[answer.site] = f"{answer.code}: {answer.text}"
            elif isinstance(answer, Description):
                if answer.site in found:
                    raise ValueError(
                        f"two nodes call themselves {answer.site!r}; give every site a name of "
                        "its own"
                    )
                found[answer.site], named[answer.site] = answer, numbered[number]
        self._introduced = named
        absent = {s: refused.get(s, NOT_HERE) for s in agreed if s not in found}
        return dict(sorted(found.items())), absent

    def _join(
        self, agreed: Sequence[str], found: dict[str, Description], limits: StrategyConfig
    ) -> dict[str, str]:
        """Ask the sites that are there and not found yet; return those that lack, and why."""
        lacking = [site for site in agreed if site not in found]
        here = self._nodes()
        absent = {site: GONE for site in lacking if site not in here}
        asked = [site for site in lacking if site in here]
        for site, answer in self._descriptions(asked, limits):
            if isinstance(answer, (Description, Refusal)) and answer.site != site:
                absent[site] = f"calls itself {answer.site!r}; its site.yaml must have its own name"
            elif isinstance(answer, Description):
                found[site] = answer
            elif isinstance(answer, Refusal):
                absent[site] = f"{answer.code}: {answer.text}"
            else:
                absent[site] = answer.reason if isinstance(answer, Missing) else NOT_HERE
        return absent

    def _descriptions(
        self, names: Sequence[str], limits: StrategyConfig
    ) -> Iterator[tuple[str, Answer | Missing]]:
        records = pack_request(Request(study=self._study))
        # Whoever goes away meanwhile is told as missing, and asked again.
        asked = self._calls.ask(names, lambda _: records, MessageType.QUERY, limits, patient=False)
        for name, answer, _ in asked:
            yield name, answer

    def _pause_for(self, sites: set[str]) -> None:
        """Pause, no longer than until one of these sites is there."""
        end = time.monotonic() + ASK_AGAIN_S
        while time.monotonic() < end and not sites & set(self._nodes()):
            self._pause(LOOK_S)

    def _pause(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if self._watch.stopped():
                raise StopError
            time.sleep(self._watch.poll_s)


def _expected(
    site: str, answer: Answer | Missing, kind: type[Reply], round_number: int
) -> Reply | Missing:
    if isinstance(answer, kind):
        if answer.site != site or answer.round != round_number:
            return Missing(f"answered as {answer.site!r} for round {answer.round}")
        return answer
    if isinstance(answer, Refusal):
        return Missing(f"{answer.code}: {answer.text}")
    return answer if isinstance(answer, Missing) else Missing("answered another question")
