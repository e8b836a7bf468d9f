"""The verb new: a commented folder for a study of one's own data."""

import re
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from rich.console import Console

from common.schema import SettingsError

TEMPLATES = Path(__file__).parent / "templates"
FILES = {
    "settings.txt": "settings.txt.jinja",
    "README.md": "README.md.jinja",
    "data/manifest.csv": "manifest.csv.jinja",
}
_NAME = re.compile(r"[a-z][a-z0-9_]{0,39}")


class Kind(StrEnum):
    """What a study's network answers."""

    SEGMENTATION = "segmentation"
    CLASSIFICATION = "classification"


class Images(StrEnum):
    """What its images are."""

    PICTURES = "pictures"
    SLICES = "slices"
    VOLUMES = "volumes"


def make_study(folder: Path, task: Kind, images: Images) -> list[Path]:
    """Write the folder and return its files.

    Raises:
        SettingsError: the folder is there, or its name is no study's.
    """
    name = folder.name
    if not _NAME.fullmatch(name):
        raise SettingsError(
            f"{name!r} is not allowed as a study's name; give up to 40 of a-z, 0-9 and _, the "
            "first a letter"
        )
    if folder.exists():
        raise SettingsError(f"{folder} is there already; give another name, or take it away")
    known = {
        "name": name,
        "folder": folder,
        "data": (folder / "data").resolve(),
        "task": task.value,
        "dense": task is Kind.SEGMENTATION,
        "volumes": images is Images.VOLUMES,
        "data_group": images.value,
        "size": "[40,56,40]" if images is Images.VOLUMES else "[64,64]",
        "model": "unet" if task is Kind.SEGMENTATION else "cnn",
        "ending": ".png" if images is Images.PICTURES else ".nii.gz",
    }
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    (folder / "data").mkdir(parents=True)
    for file, template in FILES.items():
        (folder / file).write_text(environment.get_template(template).render(known))
    return [folder / file for file in FILES]


def new(
    folder: Annotated[Path, typer.Argument(help="The folder to make, as my_study.")],
    task: Annotated[Kind, typer.Option(help="What the network answers.")] = Kind.SEGMENTATION,
    images: Annotated[
        Images, typer.Option(help="PNG and JPEG, slices of NIfTI volumes, or whole volumes.")
    ] = Images.PICTURES,
) -> None:
    """Write a commented folder for a study of your own data: settings and a table of images."""
    for file in make_study(folder, task, images):
        _say(f"written: {file}")
    _say(f"next: {folder / 'README.md'}; then  wardround-sim @{folder / 'settings.txt'}")


app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
app.command()(new)


def _say(text: str) -> None:
    Console().print(text, highlight=False, markup=False, soft_wrap=True)
