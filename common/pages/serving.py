"""The answers of a page: HTML from templates that escape, JSON, the script and the styles.

Imports no torch. What a page shows comes from sites and files; templates escape all of it, and the
script writes text, never markup.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, Response
from starlette.routing import Route

from common.pages import FOLDER

ASSETS = {
    "page.js": "text/javascript",
    "page.css": "text/css",
    "look.css": "text/css",
    "icon.svg": "image/svg+xml",
}


def asset_routes() -> list[Route]:
    """Return the routes of what every page loads."""
    return [Route(f"/assets/{name}", _asset(name, kind)) for name, kind in ASSETS.items()]


def json_answer(value: object, status: int = 200) -> Response:
    """Return a value as JSON; NaN is refused, for a browser cannot read it."""
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    return Response(text, status, media_type="application/json")


def not_found(what: str) -> Response:
    """Return that there is no such thing."""
    return json_answer({"error": what}, 404)


async def body_of(request: Request, most_bytes: int) -> bytes | None:
    """Return the body of a request; None where it is longer, of which no more is read."""
    raw = b""
    async for part in request.stream():
        raw += part
        if len(raw) > most_bytes:
            return None
    return raw


class Pages:
    """The HTML of some templates, which lie in a folder beside those of common/pages."""

    def __init__(self, folder: Path, **known: object) -> None:
        """known: values that every template may use."""
        self._environment = Environment(
            autoescape=True,
            undefined=StrictUndefined,
            loader=FileSystemLoader([folder, FOLDER]),
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._environment.globals |= known

    def answer(self, template: str, status: int = 200, **values: Any) -> Response:  # noqa: ANN401
        """Return a page."""
        text = self._environment.get_template(template).render(**values)
        return HTMLResponse(text, status)


def number_asked(asked: Mapping[str, str], name: str, default: int, most: int) -> int:
    """Return a whole number of a URL, between 1 and most; the default where it is none."""
    try:
        return min(max(int(asked[name]), 1), most)
    except (KeyError, ValueError):
        return default


def _asset(name: str, kind: str) -> Any:  # noqa: ANN401 - starlette takes many kinds of endpoint
    async def asset(_: Request) -> Response:
        return FileResponse(FOLDER / name, media_type=kind)

    return asset
