"""The verb predict of wardround-site: a finished study's model on a hospital's own images.

wardround-site predict --model RUN --input scans --output answers
"""

import time
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from common.checks import one_of, positive
from common.schema import SettingsError

if TYPE_CHECKING:
    from client.prediction.table import Row

FAILED, PARTIAL = 1, 3
LOG_WIDTH = 120
TOLD = 20
"""Broken files that are told; the table has them all."""


def mount(app: typer.Typer) -> None:
    """Give the verb to the command of a hospital."""
    app.command("predict")(predict)


def predict(
    model: Annotated[
        Path, typer.Option(metavar="RUN", help="A finished study's run folder, or its model.")
    ],
    inputs: Annotated[
        Path, typer.Option("--input", metavar="PATH", help="An image, or a folder of images.")
    ],
    output: Annotated[Path, typer.Option(metavar="DIR", help="Where the answers go.")],
    tta: Annotated[
        str | None,
        typer.Option(
            help="Test-time augmentation: none, or flip (left-right, averaged); else the study's.",
        ),
    ] = None,
    entropy_maps: Annotated[
        bool, typer.Option("--entropy-maps", help="Write how unsure the model is of each voxel.")
    ] = False,
    heat_maps: Annotated[
        bool, typer.Option("--heat-maps", help="Draw where a classification's model looked.")
    ] = False,
    device: Annotated[str, typer.Option(help="cpu, cuda or cuda:N.")] = "cpu",
    threads: Annotated[
        int, typer.Option(help="CPU threads; more may be slower where others work too.")
    ] = 1,
) -> None:
    """Predict images with a finished study's model; exit code 3 if some files were broken."""
    # Imports torch, which the other verbs do without.
    import torch

    from client.prediction.inputs import inputs_at
    from client.prediction.run import MIRRORED, Settings
    from client.prediction.run import predict as predicted
    from common.finished import load_finished

    if tta is not None:
        one_of(MIRRORED, **{"--tta": tta})
    positive(**{"--threads": threads})
    torch.set_num_threads(threads)
    found = inputs_at(inputs, output)
    finished = load_finished(model)
    _check_maps(finished.study.task.dense, entropy_maps, heat_maps)
    settings = Settings(
        output=output,
        augmentation=tta,
        entropy_maps=entropy_maps,
        heat_maps=heat_maps,
        device=device,
    )
    began = time.monotonic()
    with bar_on(Console(stderr=True)) as bar:
        task = bar.add_task("images", total=len(found.inputs))
        rows = predicted(finished, found.inputs, settings, lambda _: bar.advance(task))
    _tell(_console(), rows, output, time.monotonic() - began, found.others)
    if finished.chosen_temperature is not None:
        typer.echo(
            f"scores are at the temperature {finished.chosen_temperature:g}, which fits the "
            "held-out patients of the study's sites best (Guo et al., ICML 2017)"
        )
    broken = sum(row.answer is None for row in rows)
    if broken:
        raise typer.Exit(FAILED if broken == len(rows) else PARTIAL)


def _check_maps(dense: bool, entropy_maps: bool, heat_maps: bool) -> None:
    if entropy_maps and not dense:
        raise SettingsError(
            "--entropy-maps are of voxels, and this study answers an image as a whole; its entropy "
            "is in the table, and --heat-maps draws where the model looked"
        )
    if heat_maps and dense:
        raise SettingsError(
            "--heat-maps are of classes, and this study answers with masks; --entropy-maps shows "
            "where it is unsure"
        )
    if heat_maps and find_spec("captum") is None:
        raise SettingsError(
            "--heat-maps needs captum, which is not installed; pip install 'wardround[explain]'"
        )


def bar_on(console: Console) -> Progress:
    """Return a bar of images on a terminal; nothing of it stays."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    return Progress(*columns, TimeRemainingColumn(), console=console, transient=True)


def _console() -> Console:
    console = Console()
    return console if console.is_terminal else Console(width=LOG_WIDTH)


def _tell(
    console: Console,
    rows: "Sequence[Row]",
    output: Path,
    seconds: float,
    others: int,
) -> None:
    answered = [row for row in rows if row.answer is not None]
    table = Table(title="images")
    for name in ("answered", "broken", "outside the domain", "mean entropy", "seconds"):
        table.add_column(name, justify="right")
    known = [row.domain for row in answered if not row.domain_note]
    note = next((row.domain_note for row in answered if row.domain_note), "")
    entropies = [row.answer.entropy for row in rows if row.answer is not None]
    table.add_row(
        str(len(answered)),
        str(len(rows) - len(answered)),
        str(known.count("outside")) if known else "unknown",
        f"{sum(entropies) / len(entropies):.3f}" if entropies else "-",
        f"{seconds:.1f}",
    )
    console.print(table)

    def say(text: str) -> None:
        console.print(text, highlight=False, markup=False, soft_wrap=True)

    if note:
        say(f"of {len(answered) - len(known)} images it is unknown if they are strange: {note}")
    if others:
        say(f"{others} files of other kinds were left alone")
    broken = [row for row in rows if row.answer is None]
    for row in broken[:TOLD]:
        say(f"broken: {row.name} {row.reason}")
    if len(broken) > TOLD:
        say(f"and {len(broken) - TOLD} more; the table has them all")
    say(f"table  {output / 'predictions.csv'}")
