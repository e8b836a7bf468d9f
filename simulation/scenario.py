"""A federation that is not always whole: who misses a round and who sends what does harm.

Every draw is seeded by study, round and site, so that a scenario is the same on every engine, and
after a kill. A site that misses a round is not asked at all, and the result tells why.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from flwr.app import Message, MessageType
from numpy.typing import NDArray

from common.contract import Refusal, Released, TrainReply
from common.framing import Arrays
from common.messages import pack_answer, reply, unpack_answer, unpack_request, unpack_weights
from common.schema import SettingsError
from common.seeding import seed
from common.study import Study
from server.events import Tell
from simulation.engines.grid import Engine, partition_of
from simulation.scenario_config import ScenarioConfig

CODE = "scenario"


def why_absent(scenario: ScenarioConfig, base: int, site: str, number: int, place: int) -> str:
    """Return why a site misses a round, in words; empty if it takes part.

    base: the study's seed. number: of the round, from 1. place: of the site in the order in which
    the sites arrive, from 0.
    """
    first = scenario.arrive.get(site, 1)
    if scenario.arrivals_per_round is not None:
        first = max(first, arrival(scenario.arrivals_per_round, base, place))
    if number < first:
        return f"arrives in round {first}"
    if number >= scenario.leave.get(site, number + 1):
        return f"left in round {scenario.leave[site]}"
    draws = np.random.default_rng(seed(base, number, site, "scenario"))
    if draws.random() < scenario.drop_out:
        return "dropped out of this round"
    if scenario.answer_s is not None and scenario.deadline_s is not None:
        longer = math.exp(scenario.answer_spread * draws.standard_normal())
        took_s = scenario.answer_s * scenario.slow.get(site, 1.0) * longer
        if took_s > scenario.deadline_s:
            return f"would have answered after {took_s:.0f} s, the round ends after " + (
                f"{scenario.deadline_s:g} s"
            )
    return ""


def arrival(per_round: float, base: int, place: int) -> int:
    """Return the round in which the site of this place arrives, with exponential times between."""
    draws = np.random.default_rng(seed(base, "arrivals"))
    return 1 + math.floor(float(draws.exponential(1 / per_round, place).sum()))


def poisoned(
    kind: str, strength: float, before: Arrays, after: Arrays, draws: np.random.Generator
) -> dict[str, NDArray[Any]]:
    """Return the weights of an update that is meant to harm; counters stay.

    before: the model that the site was sent. after: what it made of it. The step is `strength`
    times as long: flipped the other way, boosted the same way, noise in a direction by chance.
    """
    starts = {n: before[n].astype(np.float64) for n, a in after.items() if a.dtype.kind == "f"}
    steps = {n: after[n].astype(np.float64) - start for n, start in starts.items()}
    if kind == "noise":
        length = _length(steps)
        steps = {n: draws.standard_normal(step.shape) for n, step in sorted(steps.items())}
        strength *= length / _length(steps)
    factor = -strength if kind == "flipped" else strength
    moved = {n: starts[n] + factor * step for n, step in steps.items()}
    return {n: moved[n].astype(a.dtype) if n in moved else a for n, a in after.items()}


def _length(steps: Mapping[str, NDArray[np.float64]]) -> float:
    return math.sqrt(sum(float((step**2).sum()) for step in steps.values()))


def check_scenario(config: ScenarioConfig, study: Study, sites: Sequence[str]) -> None:
    """Raise SettingsError if the scenario does not fit the study or names sites that it lacks."""
    strange = sorted(config.sites - set(sites))
    if strange:
        raise SettingsError(
            f"simulation.scenario names {', '.join(strange)}, which are no sites of this study; "
            f"choose from: {', '.join(sorted(sites))}"
        )
    if config.poisoned and study.compression is not None:
        raise SettingsError(
            f"simulation.scenario.poisoned={config.poisoned} changes weights, and with compression "
            "a site sends none as they are; set compression=none"
        )


class Scenario:
    """An engine under which the sites of another one come late, drop out or do harm."""

    def __init__(
        self,
        engine: Engine,
        config: ScenarioConfig,
        study: Study,
        sites: Sequence[str],
        tell: Tell,
    ) -> None:
        """sites: in the order of their places."""
        self.num_nodes = engine.num_nodes
        self._engine, self._config, self._seed = engine, config, study.seed
        self._sites, self._tell = sites, tell
        order = np.random.default_rng(seed(study.seed, "order of arrival")).permutation(len(sites))
        self._places = {site: int(place) for site, place in zip(sorted(sites), order, strict=True)}
        self._numbers = itertools.count()
        self._absent: dict[str, Message] = {}
        self._asked: dict[str, Message] = {}

    def push(self, messages: Sequence[Message]) -> list[str]:
        """Take the messages in; those to sites that miss the round are answered already."""
        whys = [self._why_absent(message) for message in messages]
        there = [message for message, why in zip(messages, whys, strict=True) if not why]
        pushed = iter(self._engine.push(there))
        identifiers = []
        for message, why in zip(messages, whys, strict=True):
            identifier = f"absent-{next(self._numbers)}" if why else next(pushed)
            identifiers.append(identifier)
            if why:
                refusal = Refusal(site=self._site(message), code=CODE, text=why)
                answer = reply(pack_answer(Released(body=refusal)), message)
                self._absent[identifier] = answer
            elif self._poison(message) is not None:
                self._asked[identifier] = message
        return identifiers

    def pull(self, identifier: str) -> Message | None:
        """Return the answer to a message; a poisoned site's with other weights."""
        if identifier in self._absent:
            return self._absent.pop(identifier)
        answer = self._engine.pull(identifier)
        asked = self._asked.get(identifier)
        if answer is None or asked is None:
            return answer
        del self._asked[identifier]
        return answer if answer.has_error() else self._harmful(asked, answer)

    def end(self) -> None:
        """End the engine."""
        self._engine.end()

    def _why_absent(self, message: Message) -> str:
        if message.metadata.message_type != MessageType.TRAIN:
            return ""
        site, number = self._site(message), unpack_request(message.content).round
        return why_absent(self._config, self._seed, site, number, self._places[site])

    def _poison(self, message: Message) -> str | None:
        if message.metadata.message_type != MessageType.TRAIN:
            return None
        return self._config.poisoned.get(self._site(message))

    def _harmful(self, asked: Message, answer: Message) -> Message:
        body = unpack_answer(answer.content)
        if not isinstance(body, TrainReply):
            return answer
        kind = self._config.poisoned[body.site]
        draws = np.random.default_rng(seed(self._seed, body.round, body.site, "poison"))
        weights = poisoned(
            kind,
            self._config.strength,
            unpack_weights(asked.content),
            unpack_weights(answer.content),
            draws,
        )
        self._tell("poisoned", site=body.site, round=body.round, kind=kind)
        return reply(pack_answer(Released(body=body, weights=weights)), asked)

    def _site(self, message: Message) -> str:
        return self._sites[partition_of(message.metadata.dst_node_id)]
