"""What every command line of a daemon does alike: one line for bad input, and an exit code."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import typer
from click import ClickException
from click.exceptions import Abort
from rich.console import Console
from rich.markup import escape

from common.error_codes import code_of
from common.system_errors import reason_of, words_of

BAD_INPUT, INTERRUPTED = 2, 130


def run_command(app: typer.Typer, name: str | None = None) -> NoReturn:
    """Run a command line and exit; bad input is told in one line and ends with 2.

    name: what its help calls it; None: as the program was called.
    """
    try:
        code = app(prog_name=name, standalone_mode=False)
    except ClickException as error:
        tell_error(error.format_message())
        code = BAD_INPUT
    except Abort:
        code = INTERRUPTED
    except (ValueError, OSError) as error:
        tell_error(error)
        code = BAD_INPUT
    sys.exit(code)


def expanded(arguments: Sequence[str]) -> list[str]:
    """Return the arguments with each @FILE replaced by the lines of the file.

    Blank lines and lines that begin with # are left out; a line is one argument.

    Raises:
        ValueError: a file cannot be read.
    """
    found: list[str] = []
    for argument in arguments:
        if not argument.startswith("@"):
            found.append(argument)
            continue
        try:
            lines = [line.strip() for line in Path(argument[1:]).read_text().splitlines()]
        except (OSError, UnicodeDecodeError) as error:
            raise ValueError(
                f"{argument[1:]} cannot be read as settings: {reason_of(error)}"
            ) from error
        found += [line for line in lines if line and not line.startswith("#")]
    return found


def tell_error(error: object) -> None:
    """Tell what is wrong in one line on stderr, with the code that docs/errors.md explains."""
    code = escape(f" [{code_of(error)}]") if isinstance(error, Exception) else ""
    words = words_of(error) if isinstance(error, OSError) else str(error)
    text = f"[bold red]error:[/] {escape(words)}[dim]{code}[/]"
    Console(stderr=True).print(text, highlight=False, emoji=False, soft_wrap=True)
