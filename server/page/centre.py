"""The centre's page: the runs of a federation, its sites, and what a coordinator does with studies.

GET  /api/sites               the sites: admitted or not, connected or not, their last word
POST /api/runs                {"settings": [...], "join_timeout_s": N}: a study is asked for
POST /api/runs/ID/stop        {"confirmed": ID}
POST /api/runs/ID/resume      {"confirmed": ID}

What is done is what the command line does, by the same functions: it is written into the
federation's folder, and the daemon does what stands there.
"""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from json import JSONDecodeError
from logging import Logger
from typing import Any

from pydantic import TypeAdapter, ValidationError
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from common.locks import LOOKED_AT_S
from common.pages.serving import Pages, asset_routes, body_of, json_answer, not_found
from server.beginning import begin_study
from server.federation.home import Home
from server.federation.registry import Registry
from server.page.app import TEMPLATES, RunPages
from server.page.door import PERSON
from server.page.runs import Runs
from server.presence import HERE_S, Presence
from server.studies import StudyRun, ask_to_stop, go_on, run_named

MOST_SETTINGS, MOST_BYTES = 200, 64_000
DEEDS: dict[str, Callable[[StudyRun], None]] = {
    "stop": ask_to_stop,
    # A process that is still ending is told of and not waited for: others use the page too.
    "resume": partial(go_on, wait_s=LOOKED_AT_S),
}


@dataclass(frozen=True, kw_only=True)
class StudyAsked:
    """The body of a study that is to be run."""

    settings: list[str]
    """As on the command line: overrides, and sites=NAME,NAME or sites=all."""
    join_timeout_s: float = 3600.0


@dataclass(frozen=True, kw_only=True)
class Confirmed:
    """The body of a change to a study."""

    confirmed: str
    """The study's folder name: whoever asks has seen which one it is."""


_StudyAsked, _Confirmed = TypeAdapter(StudyAsked), TypeAdapter(Confirmed)


def centre_app(home: Home, pages: Pages, log: Logger) -> Starlette:
    """Return the page of a federation; it asks nobody who is there (server/page/door.py does)."""
    runs = RunPages(Runs(home.runs, of_daemon=True), pages)
    own = CentrePages(home, pages, log)
    return Starlette(routes=[*own.routes(), *runs.routes(), *asset_routes()])


def centre_pages(home: Home) -> Pages:
    """Return the templates of the centre's page."""
    return Pages(TEMPLATES, coordinator=True, federation=home.settings.name)


class CentrePages:
    """What the centre's page has beside the runs."""

    def __init__(self, home: Home, pages: Pages, log: Logger) -> None:
        """log: who did what to a study."""
        self._home = home
        self._pages = pages
        self._log = log

    def routes(self) -> list[Route]:
        """Return all of them."""
        return [
            Route("/sites", self._sites_page),
            Route("/new", self._new_page),
            Route("/api/sites", self._sites),
            Route("/api/runs", self._begin, methods=["POST"]),
            Route("/api/runs/{id}/{deed}", self._change, methods=["POST"]),
        ]

    async def _sites_page(self, _: Request) -> Response:
        return self._pages.answer("sites.html.jinja")

    async def _new_page(self, _: Request) -> Response:
        return self._pages.answer("new.html.jinja")

    async def _sites(self, _: Request) -> Response:
        return json_answer(await asyncio.to_thread(sites_of, self._home, datetime.now(UTC)))

    async def _begin(self, request: Request) -> Response:
        def begun(raw: bytes) -> dict[str, Any]:
            asked = _StudyAsked.validate_json(raw)
            if not 0 < len(asked.settings) <= MOST_SETTINGS:
                raise ValueError(f"give between 1 and {MOST_SETTINGS} settings")
            found = begin_study(self._home, asked.settings, asked.join_timeout_s).run
            self._log.info("%s began %s", request.scope[PERSON], found.folder.name)
            return {"id": found.folder.name, "digest": found.asked.digest}

        return await _done(request, begun)

    async def _change(self, request: Request) -> Response:
        name, deed = request.path_params["id"], request.path_params["deed"]
        if deed not in DEEDS:
            return not_found("there is nothing to do of that name")

        def changed(raw: bytes) -> dict[str, Any]:
            confirmed = _Confirmed.validate_json(raw).confirmed
            run = run_named(self._home.path, name)
            if run.folder.name != confirmed:
                raise ValueError(f"confirmed is not {run.folder.name!r}, which is to be changed")
            DEEDS[deed](run)
            self._log.info("%s: %s %s", request.scope[PERSON], deed, run.folder.name)
            return {"id": run.folder.name}

        return await _done(request, changed)


def sites_of(home: Home, now: datetime) -> list[dict[str, Any]]:
    """Return the sites of a federation with what each told last."""
    presence, found = Presence(home.path), []
    for site in Registry(home).sites():
        heard = presence.of(site.name)
        word = heard.word if heard is not None else None
        found.append(
            {
                "site": site.name,
                "status": site.status(now),
                "days_left": None if site.revoked else site.days_left(now),
                "reason": site.reason,
                "connected": heard is not None and time.time() - heard.heard_at < HERE_S,
                "heard_at": heard.heard_at if heard is not None else None,
                "moved_at": heard.moved_at if heard is not None else None,
                "run": word.run if word is not None else "",
                "round": word.round if word is not None else 0,
            }
        )
    return found


async def _done(request: Request, work: Callable[[bytes], dict[str, Any]]) -> Response:
    """Return what came of a change; what cannot be is told with its reason."""
    raw = await body_of(request, MOST_BYTES)
    if raw is None:
        return json_answer({"error": f"a body may have {MOST_BYTES} bytes"}, 413)
    try:
        return json_answer(await asyncio.to_thread(work, raw))
    except (ValidationError, JSONDecodeError):
        return json_answer({"error": "the body is not what this takes (docs/page.md)"}, 400)
    except (ValueError, OSError) as error:
        return json_answer({"error": str(error)}, 409)
