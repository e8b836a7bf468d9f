"""What a person sees while a run goes on: a live line on a terminal, plain lines in a log."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
)
from rich.progress import Progress as Bars

from server.events import EVENTS

POLL_S = 0.2
NAMES = 20
"""Of sites in a line; a simulation may have a thousand."""


class Progress:
    """Follows the events of a run from its log, so it sees whatever process wrote them."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bars = Bars(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=console,
            transient=True,
        )
        self._rounds = self._bars.add_task("making the hospitals", total=None)
        self._waiting: list[str] = []
        self._absent: dict[str, str] = {}

    @contextmanager
    def watching(self, folder: Path) -> Iterator[None]:
        """Show what happens in the run's folder while the block works."""
        path = folder / EVENTS
        start = path.stat().st_size if path.exists() else 0
        stop = threading.Event()
        follower = threading.Thread(target=self._follow, args=(path, start, stop), daemon=True)
        with self._bars:
            follower.start()
            try:
                yield
            finally:
                stop.set()
                follower.join()

    def _follow(self, path: Path, position: int, stop: threading.Event) -> None:
        last = False
        while not last:
            last = stop.wait(POLL_S)
            if not path.exists():
                continue
            with path.open() as file:
                file.seek(position)
                lines = file.readlines()
                whole = [line for line in lines if line.endswith("\n")]
                position += sum(len(line.encode()) for line in whole)
            for line in whole:
                self._show(json.loads(line))

    def _show(self, event: dict[str, Any]) -> None:
        handler = getattr(self, "_on_" + event["event"].replace(" ", "_"), None)
        if handler is not None:
            handler(event)

    def _say(self, text: str) -> None:
        self._bars.console.print(text, highlight=False)

    def _on_make(self, event: dict[str, Any]) -> None:
        self._say(f"hospital {event['site']}: its images are there")

    def _on_engine(self, event: dict[str, Any]) -> None:
        left = f"about {event['left_s']} s of training are left"
        if event["name"] == "ray":
            self._say(f"{left}: on {event['actors']} actors from here (simulation.engine=auto)")
        else:
            self._say(f"{left}: in this process, actors would not save time")

    def _on_no_answer(self, event: dict[str, Any]) -> None:
        self._say(f"[bold red]a hospital's answer was lost[/]: {escape(event['why'])}")

    def _on_actor_died(self, event: dict[str, Any]) -> None:
        given_up = event["attempt"] == event["of"]
        several = len(event["partitions"]) > 1
        whose = "each of its hospitals" if several else "its hospital"
        follows = "is given up" if given_up else "is asked again"
        self._say(
            f"[bold red]an actor died[/] ({escape(event['why'])}); {whose} {follows} after attempt "
            f"{event['attempt']} of {event['of']}"
        )

    def _on_start(self, event: dict[str, Any]) -> None:
        going_on = f", going on after round {event['done']}" if event["done"] else ""
        self._say(f"{event['rounds']} rounds{going_on}; the sites read their data")
        self._bars.update(
            self._rounds, total=event["rounds"], completed=event["done"], description="sites join"
        )

    def _on_waiting(self, event: dict[str, Any]) -> None:
        # It comes every few seconds; a person reads it once, and again when it changes.
        for site, why in sorted(event["absent"].items()):
            if self._absent.get(site) != why:
                self._say(f"waiting for {escape(site)}: {escape(why)}")
        self._absent = dict(event["absent"])

    def _on_profile_refused(self, event: dict[str, Any]) -> None:
        self._say(f"not on the map: {escape(event['site'])}: {escape(event['why'])}")

    def _on_enrolled(self, event: dict[str, Any]) -> None:
        shown, more = event["sites"][:NAMES], len(event["sites"]) - NAMES
        rest = f" and {more} more" if more > 0 else ""
        self._say(f"{len(event['sites'])} sites: {', '.join(shown)}{rest}")
        for site, why in event["absent"].items():
            self._say(f"[bold red]without {site}[/]: {escape(why)}")

    def _on_round(self, event: dict[str, Any]) -> None:
        self._waiting = list(event["sites"])
        self._describe(f"round {event['round']}")

    def _on_reply(self, event: dict[str, Any]) -> None:
        if event["site"] in self._waiting:
            self._waiting.remove(event["site"])
        self._describe(f"round {event['round']}")

    def _on_missing(self, event: dict[str, Any]) -> None:
        self._say(
            f"[bold red]round {event['round']} without {event['site']}[/]: {escape(event['why'])}"
        )

    def _on_awaits(self, event: dict[str, Any]) -> None:
        # In a simulation a node has a number until it has told who it is.
        site = str(event["site"])
        name = "a site that still reads its data" if site.isdecimal() else site
        self._say(f"waiting for {name} since {event['seconds']} s")

    def _on_round_done(self, event: dict[str, Any]) -> None:
        known = ("time", "event", "round", "seconds", "sites", "missing", "epsilon")
        values = [
            f"{name} {value:.3f} before it"
            for name, value in event.items()
            if name not in known and value is not None
        ]
        told = "  ".join([f"round {event['round']:>3}", f"{event['seconds']:6.1f} s", *values])
        self._say(told)
        self._bars.update(self._rounds, completed=event["round"])

    def _on_tracking_lost(self, event: dict[str, Any]) -> None:
        self._say(
            f"[bold red]{event['to']} takes no figures[/]: {escape(event['why'])}; the study goes "
            "on, and it is tried again"
        )

    def _on_tracking_unfinished(self, event: dict[str, Any]) -> None:
        self._say(f"[bold red]{event['to']} lacks figures of this run[/]; its folder has them all")

    def _on_tracking_back(self, event: dict[str, Any]) -> None:
        self._say(f"{event['to']} takes figures again, also those that it missed")

    def _on_final_evaluation(self, event: dict[str, Any]) -> None:
        self._waiting = list(event["sites"])
        self._describe("last evaluation")

    def _on_evaluated(self, event: dict[str, Any]) -> None:
        if event["site"] in self._waiting:
            self._waiting.remove(event["site"])

    def _describe(self, what: str) -> None:
        names = ", ".join(self._waiting[:4]) + (" …" if len(self._waiting) > 4 else "")
        waiting = f", waiting for {names}" if names else ", combining"
        self._bars.update(self._rounds, description=what + waiting)
