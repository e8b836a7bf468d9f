"""The verbs enroll and join of wardround-site: how a hospital enters a federation.

wardround-site enroll --name st-marys              a key is made here, a request comes out
wardround-site join st-marys.admission.json        the centre's answer is checked and installed
"""

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from client.enrolment import enroll, join, site_basics, state_folder
from common.certificates import (
    WARN_DAYS,
    check_site_name,
    fingerprint,
    read_small,
)
from common.schema import SettingsError
from common.secret_files import PUBLIC, replace_file

LOG_WIDTH = 120

SiteOption = Annotated[Path, typer.Option("--site", help="The site's settings.")]
DEFAULT_SITE = Path("site.yaml")


def mount(app: typer.Typer) -> None:
    """Give the verbs to the command of a hospital."""
    app.command("enroll")(enroll_site)
    app.command("join")(join_federation)


def enroll_site(
    site: SiteOption = DEFAULT_SITE,
    name: Annotated[
        str | None, typer.Option(help="The site's name; by default that of its settings.")
    ] = None,
    new_key: Annotated[
        bool, typer.Option("--new-key", help="Ask for a certificate of a new key.")
    ] = False,
    out: Annotated[
        Path | None, typer.Option(help="The request to write; NAME.csr if nothing is said.")
    ] = None,
) -> None:
    """Make this site's key, which never leaves, and write the request for its certificate.

    Run again it keeps the key and writes the request again.
    """
    state, known = site_basics(site)
    chosen = name or known
    if chosen is None:
        raise SettingsError(f"{site} says no name; add it there, or give one with --name")
    if known not in (None, chosen):
        raise SettingsError(
            f"{site} says name: {known}, and --name says {chosen}; a site has one name, so correct "
            "the one or the other"
        )
    check_site_name(chosen)
    target = out or Path(f"{chosen}.csr")
    request = enroll(state, chosen, new_key=new_key)
    replace_file(target, request, PUBLIC)
    _say(f"written: {target}; the private key stays in {state / 'federation'}")
    _say(f"send it to the centre, which runs: wardround-server admit {target.name} --name {chosen}")


def join_federation(
    admission: Annotated[Path, typer.Argument(metavar="FILE", help="What the centre sent.")],
    site: SiteOption = DEFAULT_SITE,
    ca_fingerprint: Annotated[
        str | None,
        typer.Option("--ca-fingerprint", help="SHA-256 of the authority, told by telephone."),
    ] = None,
) -> None:
    """Check the centre's admission file and install it; also when a certificate is renewed."""
    state = state_folder(site)
    now = datetime.now(UTC)
    joined = join(state, read_small(admission), now, ca_fingerprint)
    centre, days = joined.centre, joined.days_left(now)
    _say(f"joined: {centre.federation}, as {centre.site}, at {centre.hosts[0]}:{centre.port}")
    _say(f"authority: {fingerprint(joined.authority)}")
    if ca_fingerprint is None:
        _say("compare this fingerprint with the centre's by telephone before you start")
    _say(f"certificate: {days} days left")
    if days < WARN_DAYS:
        _say(f"warning: fewer than {WARN_DAYS}; ask the centre for a new one")


def _say(line: str) -> None:
    console = Console() if sys.stdout.isatty() else Console(width=LOG_WIDTH)
    console.print(line, highlight=False, markup=False, emoji=False, soft_wrap=True)
