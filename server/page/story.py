"""How a run stands, from its events: a fold over events.jsonl, one event after the other.

Nothing else is read, so a page sees a run that another process works on as it sees a finished one.
The events are those of server/run.py, server/network.py and server/calls.py.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from common.series import Series

MAKING, READING, RUNNING, MEASURING = "making hospitals", "sites join", "running", "last evaluation"
Event = Mapping[str, Any]


@dataclass
class SiteStory:
    """One site in a run."""

    state: str = "expected"
    """In a few words, for people."""
    why: str = ""
    """Why it is absent or was missing; empty where all is well."""
    since: float = 0.0
    """Unix time of the event that brought the state."""
    epsilon: float | None = None
    """Spent so far; None without differential privacy."""
    rounds: int = 0
    """In which an update of it was accepted."""
    missed: int = 0
    """In which it was asked, and no update was accepted."""
    seconds: float = 0.0
    """Time it worked on those updates."""
    bytes_sent: int = 0
    bytes_received: int = 0
    values: Series = field(default_factory=Series)
    """The headline metric there, over the rounds trained."""
    spent: Series = field(default_factory=Series)
    losses: Series = field(default_factory=Series)

    def is_now(self, state: str, event: Event, why: str = "") -> None:
        """Note what the site does."""
        self.state, self.why, self.since = state, why, event["time"]


@dataclass
class Story:
    """A run so far."""

    phase: str = MAKING
    """MAKING, READING, RUNNING, MEASURING, or how it ended: completed, partial, failed, stopped."""
    reason: str = ""
    ended: bool = False
    began: float | None = None
    """Unix time of the first event; None before."""
    last: float | None = None
    """Unix time of the newest event."""
    planned: int = 0
    """Rounds of the study; 0 while not known."""
    round: int = 0
    """The newest round that was begun."""
    done: int = 0
    """The newest full round."""
    metric: str = ""
    """The headline metric; empty before the first evaluation."""
    sites: dict[str, SiteStory] = field(default_factory=dict)
    mean: Series = field(default_factory=Series)
    """Of the headline metric over the sites."""
    seconds: Series = field(default_factory=Series)
    """Of each full round."""
    moved: Series = field(default_factory=Series)
    """Bytes of each full round."""

    def hear(self, event: Event) -> None:
        """Take in the next event; one of a kind that is not known changes the time alone."""
        if not math.isfinite(event["time"]):
            return
        self.began = event["time"] if self.began is None else self.began
        self.last = event["time"]
        handler = _HANDLERS.get(event["event"])
        if handler is not None:
            handler(self, event)

    def of(self, site: str) -> SiteStory:
        """Return a site's story, begun where it was not heard of."""
        found = self.sites.get(site)
        if found is None:
            found = self.sites[site] = SiteStory()
        return found

    def _make(self, event: Event) -> None:
        self.of(event["site"]).is_now("its images are there", event)

    def _start(self, event: Event) -> None:
        # Also after a stop, a failure or a kill: the run goes on.
        self.phase, self.reason, self.ended = READING, "", False
        if event["done"] < self.done:
            # Its checkpoint is gone: those rounds are worked on anew.
            self.sites = {name: SiteStory() for name in self.sites}
            self.mean, self.seconds, self.moved = Series(), Series(), Series()
        self.planned, self.done, self.round = event["rounds"], event["done"], event["done"]
        for site in self.sites.values():
            site.is_now("reads its data", event)

    def _waiting(self, event: Event) -> None:
        for site, why in event["absent"].items():
            self.of(site).is_now("not there yet", event, why)

    def _enrolled(self, event: Event) -> None:
        self.phase = RUNNING
        for site in event["sites"]:
            self.of(site).is_now("joined", event)
        for site, why in event["absent"].items():
            self.of(site).is_now("absent", event, why)

    def _round(self, event: Event) -> None:
        self.phase, self.round, self.planned = RUNNING, event["round"], event["of"]
        asked = set(event["sites"])
        for name in asked:
            self.of(name).is_now(f"works on round {self.round}", event)
        for name, site in self.sites.items():
            if name not in asked and site.state != "absent":
                site.is_now(f"not asked in round {self.round}", event)

    def _reply(self, event: Event) -> None:
        self.of(event["site"]).is_now(f"has answered round {event['round']}", event)

    def _missing(self, event: Event) -> None:
        self.of(event["site"]).is_now(f"missing in round {event['round']}", event, event["why"])

    def _awaits(self, event: Event) -> None:
        site = self.sites.get(str(event["site"]))
        if site is not None:
            site.why = f"waited for since {event['seconds']} s"

    def _measured(self, event: Event) -> None:
        self.metric = event["metric"]
        known = {site: value for site, value in event["values"].items() if value is not None}
        for site, value in known.items():
            self.of(site).values.put(event["round"], value)
        if known:
            self.mean.put(event["round"], sum(known.values()) / len(known))

    def _round_done(self, event: Event) -> None:
        number, moved = event["round"], 0
        self.done = number
        self.seconds.put(number, event["seconds"])
        for name, part in event.get("sites", {}).items():
            site = self.of(name)
            site.rounds += 1
            site.seconds += part["seconds"]
            site.bytes_sent += part["bytes_sent"]
            site.bytes_received += part["bytes_received"]
            moved += part["bytes_sent"] + part["bytes_received"]
            if part["train_loss"] is not None:
                site.losses.put(number, part["train_loss"])
        for name in event.get("missing", {}):
            self.of(name).missed += 1
        self.moved.put(number, moved)
        self._spent(event.get("epsilon", {}), number)

    def _spent(self, epsilon: Mapping[str, float], number: int) -> None:
        for name, spent in epsilon.items():
            site = self.of(name)
            site.epsilon = spent
            site.spent.put(number, spent)

    def _final(self, event: Event) -> None:
        self.phase = MEASURING
        for name in event["sites"]:
            self.of(name).is_now("evaluates the last model", event)

    def _evaluated(self, event: Event) -> None:
        if self.phase == MEASURING:
            self.of(event["site"]).is_now("has evaluated the last model", event)

    def _end(self, event: Event) -> None:
        self.phase, self.reason, self.ended = event["status"], event["reason"] or "", True
        self._spent(event.get("epsilon", {}), self.done)
        for site in self.sites.values():
            if site.state != "absent":
                site.is_now("done" if self.phase in ("completed", "partial") else "idle", event)


_HANDLERS = {
    "make": Story._make,
    "start": Story._start,
    "waiting": Story._waiting,
    "enrolled": Story._enrolled,
    "round": Story._round,
    "reply": Story._reply,
    "missing": Story._missing,
    "awaits": Story._awaits,
    "measured": Story._measured,
    "round done": Story._round_done,
    "final evaluation": Story._final,
    "evaluated": Story._evaluated,
    "end": Story._end,
}
