"""The page of a folder of runs as an ASGI app: HTML, an API of JSON, and server-sent events.

GET /api/runs                 the runs, the newest first
GET /api/runs/ID              how a run stands; figures of result.json once it has ended
GET /api/runs/ID/curves       over the rounds; ?points=N
GET /api/runs/ID/log          newest events; ?site= &text= &last= &all=1
GET /api/runs/ID/events       text/event-stream: `state`, as /api/runs/ID, at every change

It asks nobody who is there: that is done before it (common/web.py, server/page/door.py). It
changes nothing.
"""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import FileResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Scope

from common.pages.serving import Pages, json_answer, not_found, number_asked
from common.web import is_ending
from server.events import words_of
from server.page.follow import MOST_LINES, Asked, last_events
from server.page.runs import REPORT, Runs, Seen
from server.page.view import MOST_POINTS, curves_of, line_of, overview_of

PIECE_BYTES = 4 * 2**20
"""Of a log that is read for one answer: an answer comes soon, and the next tells more."""
TEMPLATES = Path(__file__).parent
POLL_S, ALIVE_S = 1.0, 15.0
REPORT_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; frame-ancestors 'none'; "
    "base-uri 'none'; form-action 'none'"
)
"""A report has its styles inside, and nothing that runs."""


class RunPages:
    """The routes of the runs of a folder."""

    def __init__(self, runs: Runs, pages: Pages) -> None:
        self._runs = runs
        self._pages = pages

    def routes(self) -> list[Route]:
        """Return all of them."""
        return [
            Route("/", self._list_page),
            Route("/runs/{id:path}/report.html", self._report),
            Route("/runs/{id:path}", self._run_page),
            Route("/api/runs", self._list),
            Route("/api/runs/{id:path}/curves", self._curves),
            Route("/api/runs/{id:path}/log", self._log),
            Route("/api/runs/{id:path}/events", self._events),
            Route("/api/runs/{id:path}", self._overview),
        ]

    async def _list_page(self, _: Request) -> Response:
        return self._pages.answer("runs.html.jinja", place=self._runs.folder.resolve().name)

    async def _run_page(self, request: Request) -> Response:
        run = await self._asked(request)
        if run is None:
            return PlainTextResponse("there is no such run", 404)
        return self._pages.answer("run.html.jinja", id=run.name)

    async def _report(self, request: Request) -> Response:
        run = await self._asked(request)
        if run is None or not (run.folder / REPORT).is_file():
            return PlainTextResponse("there is no report of such a run", 404)
        headers = {"Content-Security-Policy": REPORT_POLICY}
        return FileResponse(run.folder / REPORT, media_type="text/html", headers=headers)

    async def _list(self, _: Request) -> Response:
        def told() -> list[dict[str, Any]]:
            return [line_of(run, PIECE_BYTES) for run in self._runs.all()]

        return json_answer(await asyncio.to_thread(told))

    async def _overview(self, request: Request) -> Response:
        run = await self._asked(request)
        if run is None:
            return not_found("there is no such run")
        return json_answer(await asyncio.to_thread(overview_of, run, PIECE_BYTES))

    async def _curves(self, request: Request) -> Response:
        run = await self._asked(request)
        if run is None:
            return not_found("there is no such run")
        points = number_asked(request.query_params, "points", MOST_POINTS, 10 * MOST_POINTS)
        await asyncio.to_thread(overview_of, run, PIECE_BYTES)
        return json_answer(await asyncio.to_thread(curves_of, run, max(points, 4)))

    async def _log(self, request: Request) -> Response:
        run = await self._asked(request)
        if run is None:
            return not_found("there is no such run")
        given = request.query_params
        asked = Asked(
            site=given.get("site", ""),
            text=given.get("text", ""),
            all_kinds=given.get("all") == "1",
            last=number_asked(given, "last", Asked.last, MOST_LINES),
        )
        found = await asyncio.to_thread(last_events, run.folder, asked)
        return json_answer(
            [
                {"time": event.get("time"), "event": str(event.get("event")), "told": told}
                for event, told in ((event, words_of(event)) for event in found)
            ]
        )

    async def _events(self, request: Request) -> Response:
        run = await self._asked(request)
        if run is None:
            return not_found("there is no such run")
        return StreamingResponse(_changes(run, request.scope), media_type="text/event-stream")

    async def _asked(self, request: Request) -> Seen | None:
        return await asyncio.to_thread(self._runs.named, request.path_params["id"])


def run_pages(folder: Path) -> list[Route]:
    """Return the routes of the runs of a folder, which nobody can change there."""
    return RunPages(Runs(folder), Pages(TEMPLATES, coordinator=False)).routes()


async def _changes(run: Seen, scope: Scope) -> AsyncIterator[str]:
    """Yield how the run stands whenever that changed, and a word now and then to stay connected."""
    told, silent_s = "", 0.0
    while run.folder.is_dir():
        if is_ending(scope):
            return
        stands = await asyncio.to_thread(overview_of, run, PIECE_BYTES)
        text = json.dumps(stands, allow_nan=False)
        if text != told:
            yield f"id: {run.follower.position}\nevent: state\ndata: {text}\n\n"
            told, silent_s = text, 0.0
        elif silent_s >= ALIVE_S:
            yield ": alive\n\n"
            silent_s = 0.0
        if stands["read"] < 1:
            # It is being read; how far, is told as it goes.
            continue
        await asyncio.sleep(POLL_S)
        silent_s += POLL_S
    yield "event: gone\ndata: {}\n\n"
