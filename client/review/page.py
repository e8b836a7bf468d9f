"""The pages of a review: the list of a site's images, one image at a time, and what is decided.

Served on loopback behind a token (common/web.py); an image leaves for the browser of this machine
and for nowhere else. Shape suffixes: X Y of a picture, S spatial axes of the file.
"""

import base64
import tempfile
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from threading import Lock
from typing import Any
from urllib.parse import parse_qsl

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from numpy.typing import NDArray
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route

from client.manifest import Row
from client.prediction.masks import write_map
from client.prediction.passes import Passes
from client.readers import BadFileError
from client.review.decisions import (
    ACCEPTED,
    DATE,
    MOST_NOTE,
    REJECTED,
    Decision,
    Log,
    Reviewer,
    corrected_label,
    corrected_mask,
    decided,
    image_name,
)
from client.review.ranking import BY_UNSURE, BY_WORST, Looked, Ranked, in_order, look, rank
from client.site_data import rows_at
from common.pages.serving import asset_routes
from common.pictures import Example, Picture, draw

Answer = Callable[[Request], Awaitable[Response]]
MOST_MASK_BYTES = 512 * 2**20
MOST_FORM_BYTES = 64 * 1024
KEPT_IN_MEMORY = 2
"""Images that are kept with their answers; a volume has many slices to look through."""
_CONTENT = {".css": "text/css", ".js": "text/javascript"}


@dataclass
class Review:
    """One person's way through the images of a site."""

    site: str
    manifest: Path
    passes: Passes
    cases: list[Ranked]
    log: Log
    author: str
    lock: Lock = field(default_factory=Lock)
    """One image is looked at, and one thing decided, at a time."""

    def __post_init__(self) -> None:
        self.looked = lru_cache(maxsize=KEPT_IN_MEMORY)(self._look)

    def _look(self, number: int) -> Looked:
        return look(self.cases[number].row, self.passes)

    def decide(self, number: int, decision: str, note: str) -> None:
        """Write down that an answer was accepted or rejected."""
        with self.lock:
            row = self.cases[number].row
            self.log.add(decided(row, self.manifest, decision, self.author, note))

    def relabel(self, number: int, label: str) -> None:
        """Give an image another label.

        Raises:
            ValueError, OSError: it cannot be; nothing was changed.
        """
        self._corrected(
            number,
            lambda by, row: corrected_label(by, row, label),
        )

    def remask(self, number: int, content: bytes, name: str) -> None:
        """Give an image another mask.

        Raises:
            ValueError, OSError: it cannot be; nothing was changed.
        """
        self._corrected(
            number,
            lambda by, row: corrected_mask(by, row, content, name),
        )

    def _corrected(self, number: int, correct: Callable[[Reviewer, Row], Decision]) -> None:
        by = Reviewer(
            author=self.author, manifest=self.manifest, study=self.passes.study, log=self.log
        )
        with self.lock:
            row = self.cases[number].row
            at = correct(by, row).at
            rows = [one for one in rows_at(self.manifest) if one.image == row.image]
            # An image that several people labelled has a row of each.
            new = next(one for one in rows if one.covariates.get(DATE) == at)
            self.cases[number] = rank(number, new, self.passes)
            self.looked.cache_clear()


def app_of(review: Review) -> Starlette:
    """Return the app; it is to be served behind a token."""
    pages = _Pages(review)
    routes = [
        Route("/", pages.index),
        Route("/case/{number:int}", pages.case),
        Route("/case/{number:int}/picture/{at:int}", pages.picture),
        Route("/case/{number:int}/mask", pages.mask),
        Route("/case/{number:int}/decision", pages.decision, methods=["POST"]),
        Route("/case/{number:int}/label", pages.label, methods=["POST"]),
        Route("/case/{number:int}/mask", pages.upload, methods=["PUT"]),
        Route("/static/{name}", _static),
        *asset_routes(),
    ]
    return Starlette(routes=routes)


class _Pages:
    def __init__(self, review: Review) -> None:
        self._review = review
        self._environment = Environment(
            autoescape=True,
            undefined=StrictUndefined,
            loader=FileSystemLoader(Path(__file__).parent),
            trim_blocks=True,
            lstrip_blocks=True,
        )

    async def index(self, request: Request) -> Response:
        by = request.query_params.get("by", BY_WORST)
        by = by if by in (BY_WORST, BY_UNSURE) else BY_WORST
        return self._page("list.html.jinja", by=by, cases=in_order(self._review.cases, by))

    async def case(self, request: Request) -> Response:
        number, by = self._number(request), request.query_params.get("by", BY_WORST)
        order = [case.number for case in in_order(self._review.cases, by) if not case.why_not]
        seen = await run_in_threadpool(self._seen, number)
        slices = seen.picture.array_CS.shape[3] if seen.picture.array_CS.ndim == 4 else 1
        at = min(_whole(request.query_params.get("slice"), _most(seen)), slices - 1)
        place = order.index(number)
        return self._page(
            "case.html.jinja",
            by=by,
            case=self._review.cases[number],
            picture=_drawn(seen, at),
            scores=seen.answer.scores,
            at=at,
            slices=slices,
            before=order[place - 1] if place else None,
            after=order[place + 1] if place + 1 < len(order) else None,
        )

    async def picture(self, request: Request) -> Response:
        seen = await run_in_threadpool(self._seen, self._number(request))
        drawn = _drawn(seen, request.path_params["at"])
        return Response(base64.b64decode(drawn.pixels), media_type="image/png")

    async def mask(self, request: Request) -> Response:
        """Give the model's mask as a file on the image's own grid, to be corrected."""
        number = self._number(request)
        seen = await run_in_threadpool(self._seen, number)
        if seen.answer.classes_S is None:
            raise HTTPException(404, "a class has no mask")
        image = self._review.cases[number].row.image
        with tempfile.TemporaryDirectory() as folder:
            path = write_map(image, seen.picture, seen.answer.labels(), Path(folder, "mask"))
            content = path.read_bytes()
        headers = {"Content-Disposition": f'attachment; filename="{path.name}"'}
        return Response(content, media_type="application/octet-stream", headers=headers)

    async def decision(self, request: Request) -> Response:
        form = await _form(request)
        if form.get("decision") not in (ACCEPTED, REJECTED):
            raise HTTPException(400, "a decision is accepted or rejected")
        number = self._number(request)
        note = form.get("note", "")[:MOST_NOTE]
        await run_in_threadpool(self._review.decide, number, form["decision"], note)
        return _back(request, number)

    async def label(self, request: Request) -> Response:
        form, number = await _form(request), self._number(request)
        try:
            await run_in_threadpool(self._review.relabel, number, form.get("label", "").strip())
        except (ValueError, OSError) as error:
            return PlainTextResponse(str(error), 400)
        return _back(request, number)

    async def upload(self, request: Request) -> Response:
        number, name = self._number(request), request.query_params.get("name", "")
        content = await _body(request, MOST_MASK_BYTES)
        try:
            await run_in_threadpool(self._review.remask, number, content, name)
        except (ValueError, OSError) as error:
            return PlainTextResponse(str(error), 400)
        return PlainTextResponse("the mask is kept")

    def _seen(self, number: int) -> Looked:
        try:
            with self._review.lock:
                return self._review.looked(number)
        except BadFileError as error:
            raise HTTPException(404, str(error)) from error

    def _number(self, request: Request) -> int:
        number = int(request.path_params["number"])
        if number >= len(self._review.cases) or self._review.cases[number].why_not:
            raise HTTPException(404, "there is no such image")
        return number

    def _page(self, template: str, **values: Any) -> Response:  # noqa: ANN401 - for jinja
        review = self._review
        newest = review.log.newest()
        decisions = {
            case.number: newest.get(image_name(case.row, review.manifest)) for case in review.cases
        }
        text = self._environment.get_template(template).render(
            review=review,
            study=review.passes.study,
            dense=review.passes.task.config.dense,
            decisions=decisions,
            **values,
        )
        return HTMLResponse(text)


def _drawn(seen: Looked, at: int) -> Picture:
    """Return one slice with the outlines of both answers; the front of a head is up."""
    answer = seen.answer.classes_S
    (drawn,) = draw(
        [
            Example(
                site="",
                caption="",
                image_XY=_plane(seen.picture.array_CS.mean(0), at),
                truth_XY=None if seen.truth_S is None else _plane(seen.truth_S, at),
                prediction_XY=None if answer is None else _plane(answer, at),
            )
        ]
    )
    return drawn


def _plane(values_S: NDArray[Any], at: int) -> NDArray[Any]:
    if values_S.ndim == 2:
        return values_S
    return values_S[:, ::-1, min(at, values_S.shape[2] - 1)]


def _most(seen: Looked) -> int:
    """Return the slice where the two answers differ most, or else the one with the most found."""
    answer, truth = seen.answer.classes_S, seen.truth_S
    if seen.picture.array_CS.ndim < 4:
        return 0
    if answer is None:
        return int(seen.picture.array_CS.shape[3]) // 2
    shown = answer != truth if truth is not None and (answer != truth).any() else answer > 0
    return int(shown.sum((0, 1)).argmax())


def _whole(told: str | None, otherwise: int) -> int:
    return int(told) if told is not None and told.isdecimal() and len(told) < 6 else otherwise


async def _form(request: Request) -> dict[str, str]:
    """Return the fields of a form without files."""
    raw = await _body(request, MOST_FORM_BYTES)
    return dict(parse_qsl(raw.decode(errors="replace"), keep_blank_values=True))


async def _body(request: Request, most: int) -> bytes:
    parts, length = [], 0
    async for part in request.stream():
        length += len(part)
        if length > most:
            raise HTTPException(413, f"more than {most // 2**10} KiB")
        parts.append(part)
    return b"".join(parts)


def _back(request: Request, number: int) -> Response:
    by = request.query_params.get("by", BY_WORST)
    return RedirectResponse(f"/case/{number}?by={by}" if by in (BY_WORST, BY_UNSURE) else "/", 303)


async def _static(request: Request) -> Response:
    path = Path(__file__).parent / "static" / request.path_params["name"]
    if path.parent != Path(__file__).parent / "static" or path.suffix not in _CONTENT:
        raise HTTPException(404)
    if not path.is_file():
        raise HTTPException(404)
    return Response(path.read_bytes(), media_type=_CONTENT[path.suffix])
