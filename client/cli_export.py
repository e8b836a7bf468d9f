"""The verbs export and verify of wardround-site: the model for other programs, and is it genuine?

wardround-site export RUN --output DIR
wardround-site verify DIR
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from client.enrolment import membership, state_folder
from common.certificates import read_private_key
from common.export.cli import (
    FailureOption,
    FormOption,
    OutputOption,
    RunArgument,
    UseOption,
    export_and_tell,
    verify,
)

if TYPE_CHECKING:
    from common.export.provenance import Signer


def mount(app: typer.Typer) -> None:
    """Give the verbs to the command of a hospital."""
    app.command("export")(export)
    app.command("verify")(verify)


def export(
    run: RunArgument,
    output: OutputOption,
    form: FormOption = None,
    intended_use: UseOption = "",
    known_failure: FailureOption = None,
    site: Annotated[
        Path | None, typer.Option("--site", help="The site's settings, whose key signs.")
    ] = None,
) -> None:
    """Write a finished study's model as a MONAI bundle, as ONNX and for torch, with its card."""
    export_and_tell(run, output, form, intended_use, known_failure, lambda: _signer(site))


def _signer(site: Path | None) -> "Signer | None":
    if site is None:
        return None
    from common.export.provenance import Signer

    joined = membership(state_folder(site))
    key = read_private_key(joined.credentials.key_of(joined.certificate))
    return Signer(key=key, certificate=joined.certificate)
