"""The verb trainer of wardround-site: the half of a hospital that sees the data.

wardround-site trainer           answer on the site's Unix socket until SIGTERM
"""

import os
import signal
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from common.kept_memory import keep_freed_memory
from common.supervision import OWNER_ALONE, end_with_supervisor

DEFAULT_SITE = Path("site.yaml")


def mount(app: typer.Typer) -> None:
    """Give the verb to the command of a hospital."""
    app.command("trainer")(trainer)


def trainer(
    site: Annotated[Path, typer.Option("--site", help="The site's settings.")] = DEFAULT_SITE,
) -> None:
    """Start this site's trainer in the foreground; SIGTERM or ctrl-c ends it within a batch."""
    end_with_supervisor()
    # Before there are threads.
    keep_freed_memory()
    os.umask(OWNER_ALONE)
    ends = {signal.SIGTERM, signal.SIGINT}
    # Held back in all threads, and taken where the process waits: no handler interrupts anything.
    signal.pthread_sigmask(signal.SIG_BLOCK, ends)
    # Imports torch, which the other verbs do without.
    from client.service import serving

    with serving(site) as socket:
        Console(stderr=True).print(
            f"the trainer listens at {socket}", highlight=False, markup=False, soft_wrap=True
        )
        signal.sigwait(ends)
