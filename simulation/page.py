"""The verb page: the runs of a folder in a browser, live or finished, for one person."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from starlette.applications import Starlette

from common.pages.serving import asset_routes
from common.schema import SettingsError
from common.web import serve
from server.page.app import run_pages


def page(
    folder: Annotated[Path, typer.Argument(help="The folder of runs, as runs/.")] = Path("runs"),
    port: Annotated[int, typer.Option(help="Port on loopback; 0: one that is free.")] = 0,
) -> None:
    """Show the runs of a folder in a browser, on this machine alone, until Ctrl-C."""
    if not folder.is_dir():
        raise SettingsError(f"{folder} is no folder; give the folder that holds the runs")

    def say(url: str) -> None:
        about = f"the runs of {folder}, for who has this address; Ctrl-C ends it\n{url}"
        Console().print(about, highlight=False, markup=False, soft_wrap=True)

    serve(Starlette(routes=[*run_pages(folder), *asset_routes()]), port, say)


app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
app.command()(page)
