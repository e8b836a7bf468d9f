"""The verbs start and status of wardround-site: what a hospital's IT runs and looks at.

wardround-site start             keep the trainer and the node running
wardround-site status            how this site stands, on one screen
"""

import json
import time
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from client.site import Site, load_site

DEFAULT_SITE = Path("site.yaml")
SiteOption = Annotated[Path, typer.Option("--site", help="The site's settings.")]
STUDY_DIGITS = 12


def mount(app: typer.Typer) -> None:
    """Give the verbs to the command of a hospital."""
    app.command("start")(start)
    app.command("status")(status)


def start(
    trainer: Annotated[
        bool,
        typer.Option(help="Whether the trainer is kept too; not where it is a service of its own."),
    ] = True,
    site: SiteOption = DEFAULT_SITE,
) -> None:
    """Keep this site running until SIGTERM or ctrl-c."""
    from client.daemon import run_daemon

    run_daemon(site.resolve(), trainer)


def status(
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
    site: SiteOption = DEFAULT_SITE,
) -> None:
    """Tell how this site stands. Exit code 0: connected and its trainer serves; 1: not."""
    settings = load_site(site)
    found = status_of(settings)
    if as_json:
        typer.echo(json.dumps(found))
    else:
        _show(found)
    raise typer.Exit(0 if found["connected"] and found["trainer"] else 1)


def status_of(site: Site) -> dict[str, Any]:
    """Return all that the status tells."""
    from client.enrolment import membership
    from client.remote import is_serving
    from client.status import read_status
    from common.certificates import CertificateError
    from common.locks import is_held

    node = read_status(site.state_path)
    lock = site.state_path / "daemon.lock"
    running = lock.exists() and is_held(lock)
    found: dict[str, Any] = {
        "site": site.name,
        "running": running,
        "trainer": is_serving(site.socket_path),
        **(asdict(node) if node is not None else {"connected": False, "since": None}),
        "ledgers": _ledgers(site),
    }
    found["connected"] = bool(found["connected"] and running)
    try:
        member = membership(site.state_path)
        found["federation"] = member.centre.federation
        found["certificate_days"] = member.days_left(datetime.now(UTC))
    except CertificateError as error:
        found |= {"federation": None, "certificate_days": None, "last_error": str(error)}
    return found


def _ledgers(site: Site) -> list[dict[str, Any]]:
    """Return what every data set of the site has spent, and what its cap leaves."""
    if not site.ledgers_path.exists():
        # Also in the courier's container, where there is no accountant either.
        return []
    from client.privacy.ledger import LedgerError, ledgers_in, steps_of
    from client.privacy.ledger_export import default_delta
    from common.accounting import epsilons_of

    told: list[dict[str, Any]] = []
    cap = site.load_policy().privacy.max_epsilon_life
    try:
        for ledger in ledgers_in(site.ledgers_path):
            chain = ledger.chain()
            spent = epsilons_of(steps_of(list(chain.charges.values())), default_delta(chain)).rdp
            told.append(
                {
                    "data_set": chain.fingerprint[:STUDY_DIGITS],
                    "patients": len(chain.patients),
                    "epsilon_spent": _finite(spent),
                    "epsilon_left": _finite(max(0.0, cap - spent)) if spent < cap else 0.0,
                }
            )
    except LedgerError as error:
        told.append({"error": str(error)})
    return told


def _finite(value: float) -> float | None:
    # JSON has no infinity.
    return round(value, 3) if value < float("inf") else None


def _show(found: dict[str, Any]) -> None:
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")

    def row(name: str, text: str) -> None:
        table.add_row(name, escape(text))

    row("site", f"{found['site']} of {found['federation'] or 'no federation yet'}")
    state = "connected" if found["connected"] else "not connected"
    since = f" for {_ago(found['since'])}" if found["since"] else ""
    row("centre", f"{state}{since}" if found["running"] else "the daemon does not run here")
    row("trainer", "serves" if found["trainer"] else "does not answer")
    if found.get("study"):
        batches = f", batch {found['done']} of {found['of']}" if found["of"] else ""
        row("study", f"{found['study'][:STUDY_DIGITS]}, round {found['round']}{batches}")
        row("answered", found["last_answer"] or "nothing yet")
    for ledger in found["ledgers"]:
        row("epsilon", ledger.get("error") or _spent(ledger))
    if found.get("last_error"):
        at = found.get("last_error_at")
        row("last error", found["last_error"] + (f" ({_ago(at)} ago)" if at else ""))
    days = found["certificate_days"]
    row("certificate", "none" if days is None else f"{days} days left")
    Console().print(table)


def _spent(ledger: dict[str, Any]) -> str:
    spent, left = ledger["epsilon_spent"], ledger["epsilon_left"]
    return (
        f"{'infinite' if spent is None else spent} spent, {'any' if left is None else left} left "
        f"(data set {ledger['data_set']}, {ledger['patients']} patients)"
    )


def _ago(at: float) -> str:
    seconds = int(max(0.0, time.time() - at))
    days, rest = divmod(seconds, 86400)
    hours, rest = divmod(rest, 3600)
    minutes, rest = divmod(rest, 60)
    parts = ((days, "d"), (hours, "h"), (minutes, "min"), (rest, "s"))
    return next((f"{count} {unit}" for count, unit in parts if count), "0 s")
