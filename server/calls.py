"""Messages to sites and their answers, over a network on which everything is lost at times.

Flower loses a message when the node's process dies after it has taken it, or answers for a node
that it takes for gone. A site answers the same question with the same bytes and pays once, so it
is simply asked again.
"""

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field

import httpx
from flwr.app import Message, RecordDict
from flwr.common.constant import ErrorCode
from flwr.serverapp import Grid

from common.contract import Answer
from common.messages import MessageError, unpack_answer
from common.state import Arrays
from common.strategy_config import StrategyConfig
from server.events import Tell
from server.presence import Presence
from server.weights import InMessages, Weights

LOOK_S = 1.0
"""How often the nodes are looked at while an answer is awaited."""
TELL_S = 30.0
"""How often it is told whose answer is awaited."""
NOT_HERE = "did not introduce itself"
GONE = "is not connected"
KEPT_LATE = 1000
LONGEST_REASON = 400
LOST_ON_THE_WAY = frozenset(
    {ErrorCode.MESSAGE_UNAVAILABLE, ErrorCode.REPLY_MESSAGE_UNAVAILABLE, ErrorCode.NODE_UNAVAILABLE}
)
"""What the SuperLink answers for a node; the site may be at work all the same, or come back."""


class StopError(Exception):
    """The coordinator has stopped the study."""


@dataclass(frozen=True)
class Missing:
    """Why a site has no part in a round, in words that a file and a screen can hold."""

    reason: str

    def __post_init__(self) -> None:
        # Sites name tensors, metrics and themselves as they like.
        shown = "".join(letter if letter.isprintable() else "?" for letter in self.reason)
        short = shown if len(shown) <= LONGEST_REASON else f"{shown[:LONGEST_REASON]}..."
        object.__setattr__(self, "reason", short)


@dataclass(frozen=True, kw_only=True)
class Watch:
    """What a real network has and a simulated one lacks."""

    presence: Presence | None = None
    """The sites' words of their work; None where an answer is all that is ever heard."""
    join_timeout_s: float = 120.0
    """How long the agreed sites may take to be there, approved and ready."""
    stopped: Callable[[], bool] = lambda: False
    """Whether the study is to be stopped."""
    poll_s: float = 0.05
    """How often an answer is looked for."""
    weights: Weights = field(default_factory=InMessages)
    """How the weights travel."""


@dataclass
class _Call:
    site: str
    identifier: str | None = None
    session: str | None = None
    """Of the node's process that was asked."""
    told: float | None = None
    """When the site's word last moved, as the centre wrote it down."""
    moved_s: float = 0.0
    """How long it had been waited for then."""


class Calls:
    """Asks sites by name."""

    def __init__(
        self, grid: Grid, nodes: Callable[[], Mapping[str, int]], watch: Watch, tell: Tell
    ) -> None:
        """nodes: returns the node of each site that is connected now."""
        self._grid = grid
        self._nodes = nodes
        self._watch = watch
        self._tell = tell
        self._missed: set[str] = set()
        self._late: list[tuple[str, str]] = []

    def ask(
        self,
        names: Sequence[str],
        records: Callable[[str], RecordDict],
        kind: str,
        limits: StrategyConfig,
        patient: bool = True,
    ) -> Iterator[tuple[str, Answer | Missing, Arrays]]:
        """Ask all sites at once; yield their answers in the order of `names`, one in memory.

        records: what a site is asked. patient: whether a site that is not connected may come back
        meanwhile.

        Raises:
            StopError: the study is to be stopped.
        """
        self._drop_late()
        began = time.monotonic()
        waiting = {name: _Call(name) for name in names}
        self._send(waiting, records, kind)
        for name in names:
            answer, weights = self._awaited(waiting, name, records, kind, began, limits, patient)
            call = waiting.pop(name)
            if isinstance(answer, Missing):
                self._missed.add(name)
                self._abandon(call)
            else:
                self._missed.discard(name)
            yield name, answer, weights

    def _awaited(
        self,
        waiting: Mapping[str, _Call],
        name: str,
        records: Callable[[str], RecordDict],
        kind: str,
        began: float,
        limits: StrategyConfig,
        patient: bool,
    ) -> tuple[Answer | Missing, Arrays]:
        call, looked = waiting[name], time.monotonic()
        told = looked
        while True:
            answer = self._answer_to(call)
            # In this order: a site that has stopped says so, and that is no answer to count.
            if self._watch.stopped():
                raise StopError
            if answer is not None:
                return answer
            why = self._why_not(call, time.monotonic() - began, limits, patient)
            if why is not None:
                return Missing(why), {}
            if time.monotonic() - looked > LOOK_S:
                self._send(waiting, records, kind)
                looked = time.monotonic()
            if time.monotonic() - told > TELL_S:
                told = time.monotonic()
                self._tell("awaits", site=name, seconds=round(told - began))
            time.sleep(self._watch.poll_s)

    def _send(
        self, waiting: Mapping[str, _Call], records: Callable[[str], RecordDict], kind: str
    ) -> None:
        """Ask whoever is there and was not asked, or has forgotten what it was asked."""
        nodes = self._nodes()
        asked = []
        for call in waiting.values():
            session = self._session(call.site)
            if call.identifier is not None and call.session not in (None, session):
                self._tell("again", site=call.site)
                self._abandon(call)
            call.session = session
            if call.identifier is None and call.site in nodes:
                asked.append(call)
        messages = [Message(records(c.site), nodes[c.site], message_type=kind) for c in asked]
        for call, identifier in zip(asked, self._grid.push_messages(messages), strict=True):
            call.identifier = identifier

    def _answer_to(self, call: _Call) -> tuple[Answer | Missing, Arrays] | None:
        if call.identifier is None:
            return None
        try:
            messages = list(self._grid.pull_messages([call.identifier]))
        except httpx.HTTPError:
            raise
        except Exception as error:
            # What a site sends is inflated in there; one site must not end the others' study.
            return _unreadable(error), {}
        for message in messages:
            if self._watch.presence is None:
                return self._read(call.site, message)
            if message.metadata.reply_to_message_id != call.identifier:
                # The SuperLink gives out whatever a node addresses to the server.
                self._tell("stray", site=call.site)
                continue
            if message.has_error() and message.error.code in LOST_ON_THE_WAY:
                call.identifier = None
                return None
            return self._read(call.site, message)
        return None

    def _why_not(
        self, call: _Call, waited_s: float, limits: StrategyConfig, patient: bool
    ) -> str | None:
        """Return why an answer is not awaited any longer; None while it is."""
        if waited_s > limits.round_timeout_s:
            return f"no answer within {limits.round_timeout_s:g} s"
        if self._watch.presence is None:
            return NOT_HERE if call.identifier is None else None
        if call.identifier is None and (not patient or call.site in self._missed):
            return GONE
        heard = self._watch.presence.of(call.site)
        told = heard.moved_at if heard is not None else 0.0
        if told != call.told:
            # By the clock that nobody sets.
            call.told, call.moved_s = told, waited_s
        if waited_s - call.moved_s > limits.stall_timeout_s:
            return (
                GONE
                if call.identifier is None
                else (f"has told of no progress for {limits.stall_timeout_s:g} s")
            )
        return None

    def _session(self, site: str) -> str | None:
        presence = self._watch.presence
        heard = presence.of(site) if presence is not None else None
        return heard.word.session if heard is not None else None

    def _abandon(self, call: _Call) -> None:
        if call.identifier is not None:
            self._late = [*self._late, (call.site, call.identifier)][-KEPT_LATE:]
            call.identifier = None

    def _drop_late(self) -> None:
        """Take answers that nobody waits for any more off the SuperLink, and count them."""
        for site, identifier in list(self._late):
            if list(self._grid.pull_messages([identifier])):
                self._late.remove((site, identifier))
                self._tell("late", site=site)

    def _read(self, site: str, message: Message) -> tuple[Answer | Missing, Arrays]:
        if message.has_error():
            return Missing(f"the site's process failed (code {message.error.code})"), {}
        try:
            answer = unpack_answer(message.content)
            # Python's JSON reads NaN, but result.json may not hold one.
            json.dumps(asdict(answer), allow_nan=False)
            return answer, self._watch.weights.of(site, message.content)
        except MessageError as error:
            return Missing(str(error)), {}
        except ValueError:
            return Missing("the answer tells something that is not a finite number"), {}
        except Exception as error:
            # Whatever a site has thought of, it must not end the others' study.
            return _unreadable(error), {}


def _unreadable(error: Exception) -> Missing:
    return Missing(f"its answer cannot be read ({type(error).__name__})")
