"""A site's own page, for its data officer and its IT: studies, epsilon, what was told, the log.

GET  /api/site                        studies with their words, ledgers, curves
GET  /api/log                         ?of=daemon for that of the processes; ?text= &last=
POST /api/studies/DIGEST/approve      {"confirmed": DIGEST}; also reject

It is for whoever may read the site's folder, on loopback behind a token (common/web.py), and none
of it leaves the site.
"""

import asyncio
import json
import math
import re
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from client.approval import APPROVED, REJECTED, Approvals, Proposal
from client.cli_studies import person, told_study
from client.log import LOG
from client.privacy.ledger import Ledger, LedgerError, epsilons_of_charges, ledgers_in
from client.privacy.ledger_export import charge_rows, default_delta
from client.site import Site, load_site
from client.told import told_of
from common.config import load_study
from common.pages.serving import (
    Pages,
    asset_routes,
    body_of,
    json_answer,
    not_found,
    number_asked,
)
from common.schema import SettingsError
from common.series import Points, thinned

DAEMON_LOG = "logs/site.jsonl"
BEGIN = re.compile(r"\d{4}-\d\d-\d\d[ T]")
"""Of an entry of a log: its time."""
MOST_POINTS = 30
"""Of a ledger's curve: each is a whole account, a twentieth of a second."""
MOST_ROUNDS = 200
"""Of a curve over the rounds."""
MOST_LINES = 1000
MOST_BODY_BYTES = 4096
ANSWERS = {"approve": APPROVED, "reject": REJECTED}


class SitePages:
    """The routes of one site's page."""

    def __init__(self, file: Path) -> None:
        """file: site.yaml.

        Raises:
            SettingsError: it cannot be used.
        """
        self._file = file
        self._site = load_site(file)
        self._pages = Pages(Path(__file__).parent, site=self._site.name)
        self._studies: dict[tuple[object, ...], dict[str, Any]] = {}
        self._curves: dict[tuple[str, float], list[tuple[float, float]]] = {}

    def app(self) -> Starlette:
        """Return the page."""
        own = [
            Route("/", self._page),
            Route("/api/site", self._about),
            Route("/api/log", self._log),
            Route("/api/studies/{digest}/{answer}", self._decide, methods=["POST"]),
        ]
        return Starlette(routes=[*own, *asset_routes()])

    async def _page(self, _: Request) -> Response:
        return self._pages.answer("site_page.html.jinja")

    async def _about(self, _: Request) -> Response:
        return json_answer(await asyncio.to_thread(self._told))

    async def _log(self, request: Request) -> Response:
        text = request.query_params.get("text", "").lower()
        last = number_asked(request.query_params, "last", 200, MOST_LINES)
        of_daemon = request.query_params.get("of") == "daemon"
        return json_answer(await asyncio.to_thread(log_entries, self._site, of_daemon, text, last))

    async def _decide(self, request: Request) -> Response:
        digest, answer = request.path_params["digest"], request.path_params["answer"]
        raw = await body_of(request, MOST_BODY_BYTES)
        if answer not in ANSWERS or raw is None:
            return not_found("there is no such answer")
        try:
            if json.loads(raw)["confirmed"] != digest:
                raise ValueError("confirmed is not the digest of the study that is answered")
            approvals, now = Approvals(self._site.state_path), datetime.now(UTC)
            found = await asyncio.to_thread(
                approvals.answer, digest, ANSWERS[answer], person(), now
            )
        except (KeyError, TypeError, ValueError, RecursionError) as error:
            return json_answer({"error": str(error)}, 409)
        return json_answer({"digest": found.digest, "status": found.status})

    def _told(self) -> dict[str, Any]:
        told, studies = told_of(self._site.state_path), self._proposals()
        approved = [study["delta"] for study in studies if study["status"] == APPROVED]
        deltas = [delta for delta in approved if delta is not None]
        return {
            "site": self._site.name,
            "person": person(),
            "studies": [
                {**study, "told": _summary(told.get(study["digest"], []))} for study in studies
            ],
            "ledgers": [self._ledger(ledger, deltas) for ledger in _ledgers(self._site)],
            "curves": _curves(told),
        }

    def _proposals(self) -> list[dict[str, Any]]:
        """Return the studies; to compose one takes a while, and is done once for each answer.

        And again when the site's settings or its policy have changed, which its words tell of.
        """
        found, site = [], load_site(self._file)
        files = [self._file, *([Path(site.folder, site.policy)] if site.policy else [])]
        stamps = tuple(path.stat().st_mtime_ns for path in files)
        for proposal in Approvals(self._site.state_path).all():
            key = (proposal.digest, proposal.status, proposal.first_seen, stamps)
            if key not in self._studies:
                told = told_study(proposal, self._file)
                self._studies[key] = {**told, "delta": _delta_of(proposal)}
            fresh = {"last_asked": proposal.last_asked, "decided": proposal.decided}
            found.append({**self._studies[key], **fresh})
        return found

    def _ledger(self, ledger: Ledger, deltas: Sequence[float]) -> dict[str, Any]:
        """deltas: of the approved studies; what counts for life is at the least of all."""
        policy = self._site.load_policy().privacy
        about = {"name": ledger.path.name, "cap": _finite(policy.max_epsilon_life)}
        try:
            chain = ledger.chain()
        except LedgerError as error:
            return {**about, "problem": str(error)}
        delta, charges = min([default_delta(chain), *deltas]), list(chain.charges.values())
        key = (chain.newest.hash, delta)
        if key not in self._curves:
            self._curves[key] = _spending(ledger, delta)
        curve = self._curves[key]
        return {
            **about,
            "problem": "",
            "patients": len(chain.patients),
            "delta": delta,
            "charges": len(charges),
            "steps": sum(charge.steps for charge in charges),
            # What counts against the cap of the data set's life holds for any order of studies.
            "epsilon": _finite(curve[-1][1]) if curve else 0.0,
            "unbounded": bool(curve) and math.isinf(curve[-1][1]),
            "curve": [[x, y] for x, y in curve if math.isfinite(y)],
        }


def log_entries(site: Site, of_daemon: bool, text: str, last: int) -> list[str]:
    """Return the newest entries of a log of the site that hold a text, the oldest of them first.

    An entry is a line with its time, and the lines of its error below it.

    of_daemon: of the processes that run here; else of the studies, with their full errors.
    """
    path = site.state_path / DAEMON_LOG if of_daemon else Path(site.folder) / LOG
    if not path.exists():
        return []
    with path.open(errors="replace") as file:
        lines = (_readable(line.rstrip()) for line in file)
        found = (entry for entry in _entries(lines) if text in entry.lower())
        return list(deque(found, maxlen=last))


def _entries(lines: Iterable[str]) -> Iterator[str]:
    entry: list[str] = []
    for line in lines:
        if entry and BEGIN.match(line):
            yield "\n".join(entry)
            entry = []
        entry.append(line)
    if entry:
        yield "\n".join(entry)


def _readable(line: str) -> str:
    """Return a line of common/daemon_log.py as that of any log; another one as it is."""
    try:
        of = json.loads(line)
        more = f"\n{of['error']}" if "error" in of else ""
        return f"{of['time']} {of['level'].upper()} {of['part']}: {of['text']}{more}"
    except (ValueError, KeyError, TypeError, AttributeError):
        return line


def _delta_of(proposal: Proposal) -> float | None:
    """Return the delta that a study asks for; None for the site's own, and where it is unknown."""
    try:
        return load_study(proposal.overrides).privacy.delta
    except SettingsError:
        return None


def _ledgers(site: Site) -> list[Ledger]:
    return ledgers_in(site.ledgers_path) if site.ledgers_path.is_dir() else []


def _spending(ledger: Ledger, delta: float) -> list[tuple[float, float]]:
    """Return epsilon for life after some of the charges, the first and the last among them."""
    charges = [charge for _, charge in charge_rows(ledger.chain())]
    count = len(charges)
    step = max(1, math.ceil(count / MOST_POINTS))
    places = sorted({*range(step, count + 1, step), *([1, count] if count else [])})
    return [(place, epsilons_of_charges(charges[:place], delta).rdp) for place in places]


def _summary(told: list[Mapping[str, Any]]) -> dict[str, Any]:
    """Return what was told of a study, in a few numbers."""
    spent = [line["privacy"]["epsilon"] for line in told if line.get("privacy")]
    updates = {line["round"] for line in told if line.get("kind") == "update"}
    return {"updates": len(updates), "epsilon": spent[-1] if spent else None}


def _curves(told: Mapping[str, list[Mapping[str, Any]]]) -> dict[str, Any]:
    """Return by study and metric what left, over the rounds."""
    found: dict[str, dict[str, dict[int, float]]] = {}
    for study, lines in told.items():
        for line in lines:
            for metric, estimate in line.get("estimates", {}).items():
                if estimate["value"] is not None:
                    of_metric = found.setdefault(study, {}).setdefault(metric, {})
                    of_metric[line["round"]] = estimate["value"]
    return {
        study: {metric: _drawn(points) for metric, points in of.items()}
        for study, of in found.items()
    }


def _drawn(points: Mapping[int, float]) -> Points:
    rounds = sorted(points)
    return thinned(rounds, [points[number] for number in rounds], MOST_ROUNDS)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
