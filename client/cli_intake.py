"""The verbs of wardround-site by which images come in: import.

wardround-site import --root DIR --site SITE.yaml    de-identify DICOM into the site's cohort
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import track

from client.enrolment import state_folder

if TYPE_CHECKING:
    from client.readers import BadFileError

SOME_REFUSED = 3
LOG_WIDTH = 120
DEFAULT_SITE = Path("site.yaml")
TOLD = 10
"""Reasons that are spelled out."""

SiteOption = Annotated[Path, typer.Option("--site", help="The site's settings.")]
MappingOption = Annotated[
    Path | None,
    typer.Option("--mapping", help="What the study calls this site's sequences and labels."),
]
RootOption = Annotated[Path, typer.Option("--root", help="The folder that holds the images.")]


def mount(app: typer.Typer) -> None:
    """Give the verbs to the command of a hospital."""
    app.command("import")(import_)


def import_(
    root: RootOption, site: SiteOption = DEFAULT_SITE, mapping: MappingOption = None
) -> None:
    """De-identify a folder of DICOM into the site's cohort; exit code 3 if some was refused."""
    # These import the libraries of DICOM, which the other verbs do without.
    from client.intake import import_folder, store_of
    from client.mapping import Names, load_names

    store = store_of(state_folder(site), load_names(mapping) if mapping else Names())
    found = import_folder(root, store, each=watched)
    console = Console(width=LOG_WIDTH)
    tell_refused(console, found.refused)
    console.print(
        f"{store.kept} of {found.files} images de-identified into {store.folder}, {store.known} "
        f"were there already, {len(found.refused)} refused; what was taken out: {store.log}",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )
    if found.refused:
        raise typer.Exit(SOME_REFUSED)


def tell_refused(console: Console, refused: "Sequence[BadFileError]") -> None:
    """Tell each reason once, with one of its files."""
    reasons: defaultdict[str, list[BadFileError]] = defaultdict(list)
    for error in refused:
        reasons[f"{error.reason}; {error.remedy}"].append(error)
    for reason, errors in list(reasons.items())[:TOLD]:
        more = f" and {len(errors) - 1} more" if len(errors) > 1 else ""
        console.print(
            f"refused: {errors[0].path}{more} {reason}",
            highlight=False,
            markup=False,
            soft_wrap=True,
        )


def watched(files: Sequence[Path]) -> Iterable[Path]:
    """Go through files with a progress bar on a terminal."""
    console = Console(stderr=True)
    return track(files, "reading", console=console, disable=not console.is_terminal, transient=True)
