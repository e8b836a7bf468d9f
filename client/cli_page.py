"""The verb page of wardround-site: this site's studies, epsilon and log in a browser."""

from typing import Annotated

import typer
from rich.console import Console

from client.cli_studies import DEFAULT_SITE, SiteOption


def mount(app: typer.Typer) -> None:
    """Give the verb to the command of a hospital."""
    app.command("page")(page)


def page(
    site: SiteOption = DEFAULT_SITE,
    port: Annotated[int, typer.Option(help="Port on loopback; 0: one that is free.")] = 0,
) -> None:
    """Show studies, epsilon and log in a browser, on this machine alone; approve or reject there.

    Run it as the trainer's user, whose folder it reads. Ctrl-C ends it.
    """
    # They import torch and a web server, which the other verbs and the courier do without.
    from client.site_page import SitePages
    from common.web import serve

    app = SitePages(site).app()

    def say(url: str) -> None:
        about = f"this site's page, for who has this address; Ctrl-C ends it\n{url}"
        Console().print(about, highlight=False, markup=False, soft_wrap=True)

    serve(app, port, say)
