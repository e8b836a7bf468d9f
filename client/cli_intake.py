"""The verbs of wardround-site by which images come in: import, pseudonym and manifest.

wardround-site import --root DIR --site SITE.yaml    de-identify DICOM into the site's cohort
wardround-site pseudonym --site SITE.yaml             what a patient is called in the cohort
wardround-site manifest --root DIR                    list a folder of DICOM, BIDS or Decathlon
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer
from rich.console import Console
from rich.progress import track

from client.enrolment import state_folder
from common.checks import positive
from common.schema import SettingsError

if TYPE_CHECKING:
    from client.readers import BadFileError

Item = TypeVar("Item")
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
    app.command("pseudonym")(pseudonym)
    app.command("manifest")(manifest)


def import_(
    root: RootOption,
    site: SiteOption = DEFAULT_SITE,
    mapping: MappingOption = None,
    time_point: Annotated[
        int | None,
        typer.Option(help="Of a series over time, or of several echoes, only this volume, from 1."),
    ] = None,
) -> None:
    """De-identify a folder of DICOM into the site's cohort; exit code 3 if some was refused."""
    check_installed()
    # These import the libraries of DICOM, which the other verbs do without.
    from client.intake import import_folder, store_of
    from client.mapping import Names, load_names

    if time_point is not None:
        positive(**{"--time-point": time_point})
    store = store_of(state_folder(site), load_names(mapping) if mapping else Names())
    found = import_folder(root, store, each=watched, time_point=time_point)
    console = Console(width=LOG_WIDTH)
    tell_refused(console, found.refused)
    left_out = f", {found.left_out} of other time points left out" if found.left_out else ""
    console.print(
        f"{store.kept} of {found.files} images de-identified into {store.folder}, {store.known} "
        f"were there already, {len(found.refused)} refused{left_out}; "
        f"what was taken out: {store.log}",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )
    if found.refused:
        raise typer.Exit(SOME_REFUSED)


def check_installed() -> None:
    """Raise SettingsError where DICOM's libraries are not installed."""
    if find_spec("pynetdicom") is None or find_spec("highdicom") is None:
        raise SettingsError(
            "DICOM needs libraries that are not installed; pip install 'wardround[clinical]'"
        )


def pseudonym(
    number: Annotated[
        str | None, typer.Option("--patient", help="PatientID; asked for if it is not given.")
    ] = None,
    site: SiteOption = DEFAULT_SITE,
) -> None:
    """Tell what a patient is called in the cohort, such as one who withdraws consent."""
    from client.deidentify.pseudonyms import pseudonyms_of

    if number is None:
        number = str(typer.prompt("PatientID"))
    typer.echo(pseudonyms_of(state_folder(site)).patient(number))


def manifest(
    root: RootOption,
    mapping: MappingOption = None,
    output: Annotated[
        Path | None, typer.Option("--output", help="The CSV file; manifest.csv in the folder.")
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Write over a file that is there.")
    ] = False,
) -> None:
    """Write the manifest of a folder: DICOM, BIDS, a dataset.json, or plain files."""
    # These import nibabel, which the other verbs do without.
    from client.listing.written import write_manifest
    from client.mapping import Names, load_names

    target = output or (root if root.is_dir() else root.parent) / "manifest.csv"
    if target.exists() and not overwrite:
        raise ValueError(f"{target} is there already; give --output FILE, or --overwrite")
    written = write_manifest(root, target, load_names(mapping) if mapping else Names(), watched)
    rows = written.rows
    masks = sum(row.mask is not None for row in rows)
    console = Console(width=LOG_WIDTH)
    if written.unsorted:
        console.print(
            f"{written.unsorted} folders hold several DICOM series, so each of their files is an "
            "image; wardround-site import gives each series a folder",
            highlight=False,
            soft_wrap=True,
        )
    console.print(
        f"{len(rows)} of {written.found} images of {len({row.patient for row in rows})} patients, "
        f"{masks} with a mask: {target}",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )


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


def watched(files: Sequence[Item]) -> Iterable[Item]:
    """Go through files with a progress bar on a terminal."""
    console = Console(stderr=True)
    return track(files, "reading", console=console, disable=not console.is_terminal, transient=True)
