"""The verbs export and verify of wardround-server: the model for other programs, signed."""

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from common.certificates import read_certificate, read_private_key
from common.export.cli import (
    FailureOption,
    FormOption,
    OutputOption,
    RunArgument,
    UseOption,
    export_and_tell,
    verify,
)
from server.federation.cli_verbs import HomeOption
from server.federation.home import HomeError, home_folder, open_home
from server.studies import run_named

if TYPE_CHECKING:
    from common.export.provenance import Signer


def mount(app: typer.Typer) -> None:
    """Give the verbs to the command of the centre."""
    app.command("export")(export)
    app.command("verify")(verify)


def export(
    run: RunArgument,
    output: OutputOption,
    form: FormOption = None,
    intended_use: UseOption = "",
    known_failure: FailureOption = None,
    home: HomeOption = None,
) -> None:
    """Write a finished study's model as a MONAI bundle, as ONNX and for torch, with its card.

    RUN may be the name of one of the federation's studies. The server's key signs.
    """
    folder = home_folder(home)
    if not run.exists():
        run = run_named(folder, str(run)).folder
    export_and_tell(run, output, form, intended_use, known_failure, lambda: _signer(folder, home))


def _signer(folder: Path, told: Path | None) -> "Signer | None":
    """Return who signs; None where no federation is here and none was named."""
    from common.export.provenance import Signer

    try:
        own = open_home(folder).server
    except HomeError:
        if told is not None:
            raise
        return None
    certificate = read_certificate(own.certificate)
    return Signer(key=read_private_key(own.key_of(certificate)), certificate=certificate)
