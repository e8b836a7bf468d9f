"""The verbs studies, approve and reject of wardround-site: what a data officer decides.

wardround-site studies           what was proposed to this site, in plain words
wardround-site approve HASH      this study may run here
wardround-site reject HASH       it may not, whatever the policy's list says
"""

import getpass
import json
import os
import sys
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from client.approval import APPROVED, FEWEST_DIGITS, PROPOSED, REJECTED, Approvals, Proposal
from client.enrolment import state_folder

LOG_WIDTH = 120
DEFAULT_SITE = Path("site.yaml")

SiteOption = Annotated[Path, typer.Option("--site", help="The site's settings.")]
HashArgument = Annotated[
    str,
    typer.Argument(
        metavar="HASH", help=f"The study's digest, or its first {FEWEST_DIGITS} digits or more."
    ),
]


def mount(app: typer.Typer) -> None:
    """Give the verbs to the command of a hospital."""
    app.command("studies")(studies)
    app.command("approve")(approve)
    app.command("reject")(reject)


def studies(
    site: SiteOption = DEFAULT_SITE,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Tell which studies were proposed to this site, in plain words, and what was answered."""
    found = [told_study(proposal, site) for proposal in Approvals(state_folder(site)).all()]
    if as_json:
        sys.stdout.write(json.dumps(found, indent=2) + "\n")
        return
    if not found:
        _say("no study was proposed here yet")
    for study in found:
        _say(f"[bold]{study['digest']}[/]  {study['status']}")
        for name in ("problem", "name", "task", "model", "rounds", "metrics", "privacy", "costs"):
            if name in study["words"]:
                _say(f"  {name:10}{escape(study['words'][name])}")
        _say(f"  {'asked':10}{_when(study)}")
        if study["decided"]:
            _say(f"  {'answered':10}{study['decided']} by {escape(study['decided_by'])}")
        if study["status"] == PROPOSED:
            digits = study["digest"][:FEWEST_DIGITS]
            _say(f"  {'to do':10}wardround-site approve {digits}, or: reject {digits}")


def approve(digest: HashArgument, site: SiteOption = DEFAULT_SITE) -> None:
    """Let a study run at this site. All 64 digits approve one that was not proposed yet."""
    _answer(digest, APPROVED, site)


def reject(digest: HashArgument, site: SiteOption = DEFAULT_SITE) -> None:
    """Let a study not run at this site, whatever the policy's list says; approve undoes it."""
    _answer(digest, REJECTED, site)


def _answer(digest: str, status: str, site: Path) -> None:
    found = Approvals(state_folder(site)).answer(digest, status, person(), datetime.now(UTC))
    _say(f"{found.status}: {found.digest}")


def told_study(proposal: Proposal, site: Path) -> dict[str, Any]:
    """Return a proposal with its words and with what the policy's list says of it."""
    # These import torch, which an answer does without.
    from client.site import load_site
    from client.study_words import printable, study_words

    policy = load_site(site).load_policy()
    listed = policy.studies.approved is None or proposal.digest in policy.studies.approved
    status = APPROVED if listed and proposal.status == PROPOSED else proposal.status
    return {
        **asdict(proposal),
        "name": printable(proposal.name),
        "status": status,
        "words": study_words(proposal, policy),
    }


def _when(study: dict[str, Any]) -> str:
    if study["first_seen"] is None:
        return "not yet"
    return f"first {study['first_seen']}, last {study['last_asked']}"


def person() -> str:
    """Return who gives an answer, for the record."""
    sudo = os.environ.get("SUDO_USER")
    if sudo:
        return sudo
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        # A container's user may have a number and no name.
        return f"user {os.getuid()}"


def _say(text: str) -> None:
    console = Console() if sys.stdout.isatty() else Console(width=LOG_WIDTH)
    console.print(text, highlight=False, soft_wrap=True)
