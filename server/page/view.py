"""What the page is told of a run, as JSON: from its story, and from its result once there is one.

A finished run's figures are those of result.json, by the functions that the report and the
terminal use; docs/page.md lists the fields.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from common.series import Series
from server.page.runs import REPORT, Seen
from server.page.story import SiteStory, Story
from server.report import apart, joining, tables
from server.report.reading import estimate, estimates
from server.studies import StudyRun

INTERRUPTED, WAITING = "interrupted", "waiting for its process"
READING, UNREADABLE = "being read", "cannot be read"
OVER = ("completed", "partial", "failed", "stopped")
DONE = ("completed", "partial")
"""Ends that nobody goes on from."""
BROKEN = (OSError, ValueError, KeyError, TypeError)
"""What files of another program, or of another version, raise."""
MOST_POINTS = 200
KNOWN_SCHEMA = 1


@dataclass(frozen=True, kw_only=True)
class Ended:
    """What is kept of a result.json."""

    status: str
    reason: str
    at: float
    """Unix time."""
    shown: dict[str, Any] | None
    """As result_of has it; None of a version that is not known."""


@dataclass(frozen=True, kw_only=True)
class Standing:
    """How a run stands, and its result where that is the end."""

    state: str
    reason: str = ""
    shown: Mapping[str, Any] | None = None


def line_of(run: Seen, most_bytes: int) -> dict[str, Any]:
    """Return a run as a line of the list, once so much more of its log was read."""
    try:
        standing = _looked(run, most_bytes)
    except BROKEN as error:
        return {**_common(run, Story(), _broken(error)), "round": 0, "sites": 0}
    story = run.follower.story
    with run.follower.lock:
        common = _common(run, story, standing)
        return {**common, "round": story.done, "sites": len(story.sites)}


def overview_of(run: Seen, most_bytes: int) -> dict[str, Any]:
    """Return how a run stands, without its curves, once so much more of its log was read."""
    try:
        standing = _looked(run, most_bytes)
    except BROKEN as error:
        return _overview(run, Story(), _broken(error))
    with run.follower.lock:
        return _overview(run, run.follower.story, standing)


def curves_of(run: Seen, most: int = MOST_POINTS) -> dict[str, Any]:
    """Return the curves of what was read of a run, each of at most so many points."""
    story = run.follower.story
    with run.follower.lock:
        sites = sorted(story.sites.items())
        return {
            "metric": story.metric,
            "done": story.done,
            "mean": _points(story.mean, most),
            "seconds": _points(story.seconds, most),
            "bytes": _points(story.moved, most),
            "values": {name: _points(site.values, most) for name, site in sites},
            "epsilon": {name: _points(site.spent, most) for name, site in sites if site.spent},
            "loss": {name: _points(site.losses, most) for name, site in sites if site.losses},
        }


def _looked(run: Seen, most_bytes: int) -> Standing:
    """Read on, and return how a run stands.

    The result tells how it ended, the story what was done last, the lock that a process is still
    at it. The result is asked first: what is told before it is then in the log.
    """
    ended = run.of_result(_ended)
    whole = run.follower.look(most_bytes)
    story = run.follower.story
    final = run.of_daemon or (ended is not None and ended.status in DONE)
    if ended is not None and (final or (whole and _is_newest(ended, story))):
        return Standing(state=ended.status, reason=ended.reason, shown=ended.shown)
    if run.of_daemon:
        state, reason = StudyRun(run.folder).status()
        if state != "running":
            return Standing(state=state, reason=reason)
    if not whole:
        return Standing(state=READING)
    if run.of_daemon:
        return Standing(state=story.phase if run.worked_on() and not story.ended else WAITING)
    still = story.ended or run.worked_on()
    return Standing(state=story.phase if still else INTERRUPTED, reason=story.reason)


def _is_newest(ended: Ended, story: Story) -> bool:
    """Whether nothing was done since the result; who resumes a run leaves its old one there."""
    return story.ended or story.last is None or ended.at >= story.last


def _ended(result: dict[str, Any], at: float) -> Ended:
    known = result.get("schema_version") == KNOWN_SCHEMA
    return Ended(
        status=str(result["status"]),
        reason=str(result.get("reason") or ""),
        at=at,
        shown=result_of(result) if known else None,
    )


def _broken(error: Exception) -> Standing:
    return Standing(state=UNREADABLE, reason=f"{type(error).__name__}: {error}")


def result_of(result: dict[str, Any]) -> dict[str, Any]:
    """Return what the page shows of result.json."""
    name = result["headline"]
    final = {site: estimate(of, name) for site, of in estimates(result, "final").items()}
    return {
        "study": result["study"].get("name", ""),
        "digest": result["study_digest"],
        "metric": name,
        "figures": [vars(figure) for figure in tables.key_figures(result)],
        "final": final,
        "privacy": {site: about["epsilon"] for site, about in result["privacy"].items()},
        "mean": result["final"].get("mean", {}).get(name),
        "worst": result["final"].get("worst", {}).get(name),
        "missing": [vars(row) for row in tables.missing_rows(result)],
        "benefit": [vars(answer) for answer in joining.answers(result)],
        "summary": joining.summary_sentence(result),
        "matrix": [
            {**vars(row), "cells": [vars(cell) for cell in row.cells]}
            for row in joining.matrix_rows(result)
        ],
        "distances": [vars(table) for table in apart.tables(result)],
    }


def _common(run: Seen, story: Story, standing: Standing) -> dict[str, Any]:
    shown, read = standing.shown, _share_read(run)
    spent = [site.epsilon for site in story.sites.values()]
    if shown is not None:
        spent = list(shown["privacy"].values())
    elif read < 1:
        # Of a part of the log it would be too small.
        spent = []
    known = [epsilon for epsilon in spent if epsilon is not None]
    return {
        "id": run.name,
        "state": standing.state,
        "reason": standing.reason,
        "began": story.began,
        "last": story.last,
        "rounds": story.planned,
        "metric": story.metric if shown is None else shown["metric"],
        "mean": _number(story.mean.last if shown is None else shown["mean"]),
        "epsilon": _number(max(known, default=None)),
        "read": read,
    }


def _overview(run: Seen, story: Story, standing: Standing) -> dict[str, Any]:
    return {
        **_common(run, story, standing),
        "ended": standing.state in OVER,
        "round": story.round,
        "done": story.done,
        "bytes": sum(of.bytes_sent + of.bytes_received for of in story.sites.values()),
        "seconds": _number(story.seconds.total),
        "report": (run.folder / REPORT).is_file(),
        "sites": [_site(name, site) for name, site in sorted(story.sites.items())],
        "result": standing.shown,
    }


def _site(name: str, site: SiteStory) -> dict[str, Any]:
    return {
        "site": name,
        "state": site.state,
        "why": site.why,
        "since": site.since,
        "value": _number(site.values.last),
        "loss": _number(site.losses.last),
        "epsilon": _number(site.epsilon),
        "rounds": site.rounds,
        "missed": site.missed,
        "seconds": _number(round(site.seconds, 3)),
        "bytes_sent": site.bytes_sent,
        "bytes_received": site.bytes_received,
    }


def _share_read(run: Seen) -> float:
    """Return how much of the log is in the story, from 0 to 1."""
    follower = run.follower
    return min(follower.position / follower.size, 1.0) if follower.size else 1.0


def _points(series: Series, most: int) -> list[list[float]]:
    return [[x, y] for x, y in series.points(most) if math.isfinite(y)]


def _number(value: float | None) -> float | None:
    """Return what JSON can hold."""
    return value if value is not None and math.isfinite(value) else None
