"""What the page is told of a run, as JSON: from its story, and from its result once there is one.

A finished run's figures are those of result.json, by the functions that the report and the
terminal use; docs/page.md lists the fields.
"""

import math
from typing import Any

from server.page.runs import REPORT, RESULT, Seen
from server.page.series import Series
from server.page.story import SiteStory, Story
from server.report import apart, joining, tables
from server.report.reading import estimate, estimates
from server.studies import StudyRun, stop_asked

INTERRUPTED, STOPPING, WAITING = "interrupted", "stopping", "waiting for its process"
MOST_POINTS = 200
KNOWN_SCHEMA = 1


def line_of(run: Seen) -> dict[str, Any]:
    """Return a run as a line of the list."""
    story = run.follower.story
    with run.follower.lock:
        return {
            "id": run.name,
            "state": state_of(run),
            "reason": story.reason,
            "round": story.done,
            "rounds": story.planned,
            "sites": len(story.sites),
            "metric": story.metric,
            "mean": _number(story.mean.last),
            "epsilon": _most(story),
            "began": story.began,
            "last": story.last,
            "read": _share_read(run),
        }


def overview_of(run: Seen) -> dict[str, Any]:
    """Return how a run stands, without its curves."""
    story = run.follower.story
    with run.follower.lock:
        told = {
            **_head(run, story),
            "sites": [_site(name, site) for name, site in sorted(story.sites.items())],
        }
    result = run.result() if story.ended else None
    known = result is not None and result.get("schema_version") == KNOWN_SCHEMA
    return {**told, "result": result_of(result) if known and result is not None else None}


def curves_of(run: Seen, most: int = MOST_POINTS) -> dict[str, Any]:
    """Return the curves of a run, each of at most so many points."""
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


def state_of(run: Seen) -> str:
    """Return in one word or two how a run stands.

    The story tells what was done last; that a process is still at it, the lock tells.
    """
    story = run.follower.story
    if not run.of_daemon:
        return story.phase if story.ended or run.worked_on() else INTERRUPTED
    if story.ended and (run.folder / RESULT).exists():
        return story.phase
    attempt = StudyRun(run.folder).attempt
    if attempt is not None and attempt.gave_up:
        return "failed"
    if stop_asked(run.folder):
        return STOPPING
    return story.phase if run.worked_on() and not story.ended else WAITING


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
        "summary": joining.summary_sentence(result) if result.get("shift") else "",
        "matrix": [
            {**vars(row), "cells": [vars(cell) for cell in row.cells]}
            for row in joining.matrix_rows(result)
        ],
        "distances": [vars(table) for table in apart.tables(result)],
    }


def _head(run: Seen, story: Story) -> dict[str, Any]:
    return {
        "id": run.name,
        "state": state_of(run),
        "reason": story.reason,
        "ended": story.ended,
        "began": story.began,
        "last": story.last,
        "round": story.round,
        "done": story.done,
        "rounds": story.planned,
        "metric": story.metric,
        "mean": _number(story.mean.last),
        "epsilon": _most(story),
        "bytes": sum(of.bytes_sent + of.bytes_received for of in story.sites.values()),
        "seconds": _number(story.seconds.total),
        "report": (run.folder / REPORT).is_file(),
        "read": _share_read(run),
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
        "seconds": round(site.seconds, 3),
        "bytes_sent": site.bytes_sent,
        "bytes_received": site.bytes_received,
    }


def _most(story: Story) -> float | None:
    spent = [site.epsilon for site in story.sites.values() if site.epsilon is not None]
    return _number(max(spent, default=None))


def _share_read(run: Seen) -> float:
    """Return how much of the log is in the story, from 0 to 1."""
    follower = run.follower
    return min(follower.position / follower.size, 1.0) if follower.size else 1.0


def _points(series: Series, most: int) -> list[list[float]]:
    return [[x, y] for x, y in series.points(most) if math.isfinite(y)]


def _number(value: float | None) -> float | None:
    """Return what JSON can hold."""
    return value if value is not None and math.isfinite(value) else None
