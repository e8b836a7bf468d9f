"""The verb explain of wardround-site: where did the model look? Nothing of it leaves the site.

wardround-site explain --study 3f2a --case p017
"""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from common.schema import SettingsError

LOG_WIDTH = 120
DEFAULT_SITE = Path("site.yaml")


def mount(app: typer.Typer) -> None:
    """Give the verb to the command of a hospital."""
    app.command("explain")(explain)


def explain(
    study: Annotated[str, typer.Option(help="The study's hash, or how it begins.")],
    case: Annotated[str, typer.Option(metavar="PATIENT", help="A held-out patient.")],
    method: Annotated[
        list[str] | None, typer.Option(help="One method; may be given again. All by default.")
    ] = None,
    site: Annotated[Path, typer.Option("--site", help="The site's settings.")] = DEFAULT_SITE,
) -> None:
    """Draw where the final model looked in a patient's image, by several methods, each checked."""
    try:
        # Imports torch, which the other verbs do without.
        from client.explanations import explain as explained
        from client.explanations import verdict_of
    except ImportError as error:
        raise SettingsError(
            f"explain needs {error.name}, which is not installed; pip install 'wardround[explain]'"
        ) from error
    from client.site import load_site

    found = explained(load_site(site), study, case, method or [])
    table = Table(title=f"{found.patient}: why the model says {found.of_class}")
    table.add_column("method", no_wrap=True)
    table.add_column("like an untrained network's", justify="right")
    table.add_column("verdict")
    for one in found.found:
        alike = "-" if one.alike is None else f"{one.alike:+.2f}"
        table.add_row(one.method, alike, verdict_of(one))
    console = Console()
    console = console if console.is_terminal else Console(width=LOG_WIDTH)
    console.print(table)
    for name, path in (("picture", found.picture), ("page", found.page)):
        if path is not None:
            console.print(f"{name:<7}  {path}", highlight=False, soft_wrap=True)
