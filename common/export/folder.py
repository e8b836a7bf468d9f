"""A folder with a finished study's model in several forms, its card, and where it comes from."""

import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from common.checks import one_of
from common.export.bundle import write_bundle
from common.export.card import Said, card_of, page_of
from common.export.graphs import ExportError, onnx, program
from common.export.provenance import Signer, mark_of, seal
from common.files import write_atomic, write_json
from common.finished import Finished
from common.schema import SettingsError
from common.secret_files import sync_folder

Write = Callable[[Finished, Mapping[str, str], Path], None]
BUNDLE, ONNX, PROGRAM = "bundle", "model.onnx", "model.pt2"
FORMS: Mapping[str, Write] = {
    "bundle": lambda finished, mark, folder: write_bundle(finished, mark, folder / BUNDLE),
    "onnx": lambda finished, mark, folder: write_atomic(folder / ONNX, onnx(finished, mark)),
    "torch": lambda finished, mark, folder: write_atomic(folder / PROGRAM, program(finished, mark)),
}
"""A form by name: a MONAI bundle, ONNX, a torch.export program."""
CARD, PAGE = "card.json", "card.html"


@dataclass(frozen=True, kw_only=True)
class Exported:
    """What an export came to."""

    written: list[str]
    """Names of FORMS."""
    refused: dict[str, str]
    """By name of FORMS, why the network was not exported so."""


def export(
    finished: Finished, folder: Path, forms: Sequence[str], said: Said, signer: Signer | None
) -> Exported:
    """Write the forms, the card and the provenance; a form that cannot be made stops no other.

    The folder is there when all of it is: nothing is sealed that this export did not write.

    Raises:
        SettingsError: the folder holds something.
    """
    for form in forms:
        one_of(FORMS, **{"--form": form})
    target = folder.resolve()
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise SettingsError(
            f"--output {folder} holds something, which would be signed too; give an empty folder, "
            "or a new one"
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    being_made = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        being_made.mkdir()
        found = _filled(finished, being_made, forms, said)
        seal(being_made, finished, signer)
        being_made.replace(target)
    except BaseException:
        shutil.rmtree(being_made, ignore_errors=True)
        raise
    sync_folder(target.parent)
    return found


def _filled(finished: Finished, folder: Path, forms: Sequence[str], said: Said) -> Exported:
    mark = mark_of(finished)
    written, refused = [], {}
    for form in forms:
        try:
            FORMS[form](finished, mark, folder)
            written.append(form)
        except ExportError as error:
            refused[form] = str(error)
    card = card_of(finished, said)
    write_json(folder / CARD, card)
    write_atomic(folder / PAGE, page_of(card).encode())
    return Exported(written=written, refused=refused)
