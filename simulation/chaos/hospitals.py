"""Three tiny hospitals, made once, and what a study of theirs comes to when nothing happens."""

import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from client.privacy.ledger import ledgers_in
from client.privacy.ledger_rows import Charge
from server.progress import Progress
from simulation.run import composed, simulate
from simulation.sites import SITES

STUDY = ("experiment=smoke", "rounds=3", "training.local_steps=24")
NAMES = ("east", "north", "south")
_EAST = "+simulation.hospitals.east={scanner: flair_3t, patients: 25}"

Charges = dict[str, Charge]
"""What a site's ledger says of one study, by release."""


@dataclass(frozen=True)
class Undisturbed:
    """What a study comes to in one process, where nothing can be lost."""

    model: bytes
    """Of model.safetensors."""
    charges: dict[str, Charges]
    """By site."""


def make_hospitals(folder: Path) -> Path:
    """Make the hospitals below a folder, once, and return it."""
    if not (folder / SITES).exists():
        command = [sys.executable, "-m", "simulation.cli", "hospitals", *STUDY, _EAST]
        command.append(f"run.dir={folder}")
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return folder


def copy_hospitals(made: Path, folder: Path) -> None:
    """Give a federation hospitals of its own: images, settings and keys, no ledger."""
    folder.mkdir(parents=True, exist_ok=True)
    for part in ("data", SITES):
        shutil.copytree(made / part, folder / part)


def site_folders(folder: Path) -> dict[str, Path]:
    """Return where each site's settings lie, by name."""
    return {path.name.split("-", 1)[1]: path for path in sorted((folder / SITES).iterdir())}


def undisturbed(
    made: Path, folder: Path, overrides: Sequence[str], names: Sequence[str] = NAMES
) -> Undisturbed:
    """Run a study over copies of the hospitals, in this process.

    folder: where; one study each. names: the sites that take part; the smoke experiment has north
    and south.

    Raises:
        AssertionError: the study did not complete.
    """
    folder.mkdir(parents=True)
    shutil.copytree(made / "data", folder / "data")
    machine = ["simulation.engine=inprocess", *([_EAST] if "east" in names else [])]
    run = composed(folder, [*overrides, *machine])
    result = simulate(run, Progress(Console(quiet=True)))
    assert result["status"] == "completed", result["reason"]
    digest = json.loads((folder / "result.json").read_text())["study_digest"]
    sites = site_folders(folder)
    return Undisturbed(
        (folder / "model.safetensors").read_bytes(),
        {name: charges_of(place, digest) for name, place in sites.items()},
    )


def charges_of(site: Path, digest: str) -> Charges:
    """Return what a site's ledgers say of one study; the whole chain is checked on the way.

    site: the folder of its site.yaml.

    Raises:
        LedgerError: a ledger is broken.
    """
    folder = site / "state" / "ledgers"
    found: Charges = {}
    for ledger in ledgers_in(folder) if folder.exists() else []:
        charges = ledger.chain().charges
        found |= {key: charge for key, charge in charges.items() if charge.study == digest}
    return found
