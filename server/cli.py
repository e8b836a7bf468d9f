"""wardround-server: the command of the coordinating centre.

wardround-server init --name NAME --host HOST       a new federation: authority, server certificate
wardround-server admit st-marys.csr --name st-marys a site's request becomes its certificate
wardround-server revoke st-marys                    refused from now on
wardround-server rotate st-marys                    a new certificate, before the old one ends
wardround-server rotate --server                    the server's own
wardround-server sites                              who belongs to it, and how long
wardround-server start                              keep the centre running
wardround-server run experiment=virtual_mri sites=all
wardround-server list | show | stop | resume | report | logs RUN
"""

import sys

import typer
from click import ClickException
from click.exceptions import Abort
from rich.console import Console
from rich.markup import escape

from server import cli_studies
from server.federation import cli_verbs

BAD_INPUT, INTERRUPTED = 2, 130

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    # A pretty traceback shows local variables, and so the authority's key.
    pretty_exceptions_enable=False,
    help="The command of the coordinating centre.",
)
cli_verbs.mount(app)
cli_studies.mount(app)


def main() -> None:
    """Run the command line; bad input is told in one line and ends with 2."""
    try:
        code = app(standalone_mode=False)
    except ClickException as error:
        _tell(error.format_message())
        code = BAD_INPUT
    except Abort:
        code = INTERRUPTED
    except (ValueError, OSError) as error:
        _tell(error)
        code = BAD_INPUT
    sys.exit(code)


def _tell(error: object) -> None:
    text = f"[bold red]error:[/] {escape(str(error))}"
    Console(stderr=True).print(text, highlight=False, soft_wrap=True)


if __name__ == "__main__":
    main()
