"""wardround-server: the command of the coordinating centre.

wardround-server init --name NAME --host HOST       a new federation: authority, server certificate
wardround-server admit st-marys.csr --name st-marys
                                                    a site's request becomes its certificate
wardround-server revoke st-marys                    refused from now on
wardround-server rotate st-marys                    a new certificate, before the old one ends
wardround-server rotate --server                    the server's own
wardround-server sites                              who belongs to it, and how long
wardround-server start                              keep the centre running
wardround-server run experiment=virtual_mri sites=all
wardround-server export RUN --output DIR            its model for other programs, with a signed card
wardround-server password NAME                      who may enter the page
wardround-server page                               studies and sites in a browser, with a log-in
wardround-server list | show | stop | resume | report | logs RUN
"""

import typer

from common.command import run_command
from server import cli_export, cli_studies, cli_turns
from server.federation import cli_verbs
from server.page import cli_verbs as page_verbs

app = typer.Typer(
    no_args_is_help=True,
    add_completion=True,
    # A pretty traceback shows local variables, and so the authority's key.
    pretty_exceptions_enable=False,
    help="The command of the coordinating centre.",
)
cli_verbs.mount(app)
cli_studies.mount(app)
cli_turns.mount(app)
cli_export.mount(app)
page_verbs.mount(app)


def main() -> None:
    """Run the command line; bad input is told in one line and ends with 2."""
    run_command(app)


if __name__ == "__main__":
    main()
