"""What every command line of a daemon does alike: one line for bad input, and an exit code."""

import sys
from typing import NoReturn

import typer
from click import ClickException
from click.exceptions import Abort
from rich.console import Console
from rich.markup import escape

BAD_INPUT, INTERRUPTED = 2, 130


def run_command(app: typer.Typer) -> NoReturn:
    """Run a command line and exit; bad input is told in one line and ends with 2."""
    try:
        code = app(standalone_mode=False)
    except ClickException as error:
        tell_error(error.format_message())
        code = BAD_INPUT
    except Abort:
        code = INTERRUPTED
    except (ValueError, OSError) as error:
        tell_error(error)
        code = BAD_INPUT
    sys.exit(code)


def tell_error(error: object) -> None:
    """Tell what is wrong in one line on stderr."""
    text = f"[bold red]error:[/] {escape(str(error))}"
    Console(stderr=True).print(text, highlight=False, emoji=False, soft_wrap=True)
