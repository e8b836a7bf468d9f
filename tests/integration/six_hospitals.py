"""A whole private study of six hospitals, small enough to run many times, and what it leaves."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from client.privacy.ledger import Charge, ledgers_in
from client.site import load_site
from tests.hospitals import Hospitals
from tests.integration.command import sim

PATIENTS = {"east": 24, "west": 23, "upper": 22, "lower": 21}
SITES = {"north", "south", *PATIENTS}
# With noise, and with what a site keeps of the steps that it did not send.
STUDY = ["experiment=smoke", "privacy=patient_eps8", "compression=top"] + [
    f"+simulation.hospitals.{name}={{scanner:flair_3t,patients:{patients}}}"
    for name, patients in PATIENTS.items()
]


@dataclass(frozen=True)
class Left:
    """What a study leaves but for its times; two that are equal were the same study."""

    model: bytes
    result: dict[str, Any]
    charges: dict[str, list[Charge]]
    """Of each site's ledgers, in their order."""


def left_by(folder: Path) -> Left:
    """Return what the study in a folder left."""
    charges = {}
    for path in sorted((folder / "sites").glob("*/site.yaml")):
        site = load_site(path)
        chains = [ledger.chain() for ledger in ledgers_in(site.ledgers_path)]
        charges[site.name] = [charge for chain in chains for charge in chain.charges.values()]
    result = json.loads((folder / "result.json").read_text())
    return Left((folder / "model.safetensors").read_bytes(), without_times(result), charges)


def ran(folder: Path, hospitals: Hospitals, *overrides: str) -> Left:
    """Run the study in a folder, and return what it left."""
    done = sim(*asked(folder, hospitals, *overrides))
    assert done.returncode == 0, done.stdout + done.stderr
    return left_by(folder)


def asked(folder: Path, hospitals: Hospitals, *overrides: str) -> list[str]:
    """Return what wardround-sim is called with to run the study in a folder."""
    hospitals.given(folder, *STUDY, *overrides)
    return [*STUDY, *overrides, f"run.dir={folder}"]


def without_times(value: Any) -> Any:
    """Return a result without what a clock put into it."""
    if isinstance(value, dict):
        return {k: without_times(v) for k, v in value.items() if k != "seconds"}
    return [without_times(v) for v in value] if isinstance(value, list) else value
