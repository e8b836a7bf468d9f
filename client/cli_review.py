"""The verb review of wardround-site: people go through a model's answers on a site's own patients.

wardround-site review --model RUN --site SITE.yaml
"""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from client.cli_predict import bar_on
from client.cli_studies import person

DEFAULT_SITE = Path("site.yaml")


def mount(app: typer.Typer) -> None:
    """Give the verb to the command of a hospital."""
    app.command("review")(review)


def review(
    model: Annotated[
        Path, typer.Option(metavar="RUN", help="A finished study's run folder, or its model.")
    ],
    site: Annotated[Path, typer.Option("--site", help="The site's settings.")] = DEFAULT_SITE,
    author: Annotated[
        str | None, typer.Option(help="Who decides; the user of this machine by default.")
    ] = None,
    port: Annotated[int, typer.Option(help="Port on this machine; 0 takes a free one.")] = 0,
) -> None:
    """Open a page to accept, correct or reject a model's answers; it stays on this machine."""
    # Imports torch, which the other verbs do without.
    import torch

    from client.device import usable_device
    from client.prediction.passes import Passes
    from client.review.decisions import Log
    from client.review.page import Review, app_of
    from client.review.ranking import ranked
    from client.site import load_site
    from client.site_data import rows_at
    from common.export.provenance import sha256_of
    from common.finished import load_finished
    from common.web import serve

    own, finished = load_site(site), load_finished(model)
    device = usable_device(own.device)
    torch.set_num_threads(own.threads)
    passes = Passes(
        network=finished.network.to(device),
        study=finished.study,
        task=finished.task,
        device=device,
    )
    rows = rows_at(own.manifest_path)
    with bar_on(Console(stderr=True)) as bar:
        task = bar.add_task("images", total=len(rows))
        cases = ranked(rows, passes, lambda: bar.advance(task))
    going = Review(
        site=own.name,
        manifest=own.manifest_path,
        passes=passes,
        cases=cases,
        log=Log(own.state_path, finished.digest, sha256_of(finished.weights)),
        author=author or person(),
    )
    console = Console()

    def say(url: str) -> None:
        console.print(f"open {url}", highlight=False, markup=False, soft_wrap=True)
        console.print("It is for this machine alone. Ctrl-C ends it.")

    serve(app_of(going), port, say)
