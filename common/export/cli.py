"""The verbs export and verify, which the centre and a hospital have alike.

wardround-server export RUN --output DIR     a MONAI bundle, ONNX, torch.export, a signed card
wardround-site verify DIR                    is it still what was exported, and whose is it?
"""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from common.certificates import SERVER_NAME, common_name, fingerprint, read_certificate

FAILED, PARTIAL = 1, 3
LOG_WIDTH = 120

RunArgument = Annotated[
    Path, typer.Argument(metavar="RUN", help="A finished study's run folder, or its model.")
]
OutputOption = Annotated[Path, typer.Option("--output", metavar="DIR", help="A new folder.")]
FormOption = Annotated[
    list[str] | None,
    typer.Option("--form", help="bundle, onnx or torch; may be given again. All by default."),
]
UseOption = Annotated[
    str, typer.Option("--intended-use", help="What it is for, in place of what the settings say.")
]
FailureOption = Annotated[
    list[str] | None,
    typer.Option("--known-failure", help="Where it fails, in a sentence; may be given again."),
]


def export_and_tell(
    run: Path,
    output: Path,
    forms: list[str] | None,
    intended_use: str,
    known_failures: list[str] | None,
    signer: Callable[[], Any],
) -> None:
    """Export, print what was written and what was refused, and end with 3 if anything was.

    signer: returns who signs, or None (common/export/provenance.py).
    """
    # Imports torch, which the other verbs do without.
    from common.export.card import Said
    from common.export.folder import FORMS, export
    from common.finished import load_finished

    finished, by = load_finished(run), signer()
    said = Said(intended_use=intended_use, known_failures=known_failures or ())
    found = export(finished, output, forms or list(FORMS), said, by)
    for form in found.written:
        say(f"written  {form}")
    for why in found.refused.values():
        say(f"refused  {why}")
    whose = "signed by nobody: no key is here" if by is None else f"signed by {_named(by)}"
    say(f"card     {output / 'card.html'}, {whose}")
    if found.refused:
        raise typer.Exit(PARTIAL)


def verify(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A folder that export wrote.")],
    authority: Annotated[
        Path | None,
        typer.Option(help="The federation's ca.pem; the signature must be of one of its keys."),
    ] = None,
    signer: Annotated[
        str, typer.Option(help="Who must have signed; a site's name where a site did.")
    ] = SERVER_NAME,
) -> None:
    """Tell whether an exported folder is still what was exported; exit code 1 if it is not."""
    from common.export.provenance import verify as verified

    ca = None if authority is None else read_certificate(authority)
    found = verified(folder, ca, signer)
    told = found.provenance
    say(f"study    {told.get('study')}, {told.get('study_digest')}, {told.get('rounds')} rounds")
    say(f"sites    {', '.join(told.get('participants') or []) or 'not known'}")
    for line in found.wrong:
        say(f"WRONG    {line}")
    if found.wrong:
        raise typer.Exit(FAILED)
    if found.signer is None:
        say("whole    every file is as it was listed; the list is signed by nobody")
        return
    say(f"whole    every file is as it was exported, signed by {common_name(found.signer)}")
    if ca is None:
        say(
            f"         its certificate is {fingerprint(found.signer)}; give --authority ca.pem to "
            "know whose it is"
        )


def _named(signer: Any) -> str:  # noqa: ANN401 - its module is loaded with torch
    return common_name(signer.certificate)


def say(line: str) -> None:
    """Print a line as it is; what is no character to be seen is shown by its number."""
    line = "".join(one if one.isprintable() else ascii(one)[1:-1] for one in line)
    console = Console() if sys.stdout.isatty() else Console(width=LOG_WIDTH)
    console.print(line, highlight=False, markup=False, soft_wrap=True)
