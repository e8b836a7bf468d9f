"""Hospitals on disk: each gets the folder that a real one would have, with a site.yaml of its own.

A simulated site is then read by the same code as a real one.
"""

import hashlib
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from client.manifest import read_manifest
from client.outbox import KEY
from client.privacy.policy import open_policy
from client.site import load_site
from common.files import write_atomic
from common.secret_files import private_folder, replace_file
from common.seeding import seed
from common.study import Study
from simulation.config import SimulationConfig, data_root, named_scanner
from simulation.environment import worker_processes
from simulation.hospitals import overlay_site, write_hospital
from simulation.partition import partition

SITES, DATA = "sites", "data"


def prepare_sites(
    folder: Path,
    tree: DictConfig,
    study: Study,
    simulation: SimulationConfig,
    tell: Callable[[str], None],
) -> list[str]:
    """Make every hospital's folder below folder/sites, largest hospital first; return their names.

    What is complete is left as it is, so that a killed run goes on. tell is called with the name
    of each hospital as it is made.
    """
    if simulation.source == "virtual":
        manifests = _virtual(folder, study, simulation, tell)
    else:
        manifests = _real(folder, tree, study, simulation, tell)
    # As many digits as the last place has: the folders are found again in the order of their names.
    digits = max(3, len(str(len(manifests) - 1)))
    for place, (name, manifest) in enumerate(manifests.items()):
        site = folder / SITES / f"{place:0{digits}d}-{name}"
        _write_site(site, name, manifest, study, simulation)
    return list(manifests)


def share_hospitals(folder: Path, other: Path) -> None:
    """Give the run in a folder the hospitals' images of the run in another, unless it has its own.

    They have to be of the same settings; nobody changes them.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (other / DATA).mkdir(parents=True, exist_ok=True)
    if not (folder / DATA).exists():
        there = Path(os.path.relpath(other / DATA, folder))
        (folder / DATA).symlink_to(there, target_is_directory=True)


def check_columns(folder: Path, study: Study) -> None:
    """Refuse subgroups by a column that no hospital below folder/sites has.

    Raises:
        ValueError: with the columns that there are.
    """
    asked = {} if study.evaluation is None else study.evaluation.subgroups_asked
    if not asked:
        return
    known: set[str] = set()
    for path in sorted((folder / SITES).glob("*/site.yaml")):
        for row in read_manifest(load_site(path).manifest_path):
            known |= row.covariates.keys()
    for column in sorted(set(asked) - known):
        raise ValueError(
            f"evaluation.subgroups names {column!r}, which no hospital's manifest has; its columns "
            f"for subgroups are: {', '.join(sorted(known)) or 'none'}"
        )


def _virtual(
    folder: Path, study: Study, simulation: SimulationConfig, tell: Callable[[str], None]
) -> dict[str, Path]:
    hospitals = simulation.virtual_hospitals()
    places = [folder / DATA / hospital.name for hospital in hospitals]
    seeds = [seed(study.seed, hospital.name, "virtual hospital") for hospital in hospitals]
    manifests = {}
    with _workers(simulation.actors if any(not place.exists() for place in places) else 0) as each:
        for hospital, manifest in zip(
            hospitals, each(write_hospital, places, hospitals, seeds), strict=True
        ):
            manifests[hospital.name] = manifest
            tell(hospital.name)
    return manifests


@contextmanager
def _workers(processes: int) -> Iterator[Callable[..., Iterable[Path]]]:
    """Give a `map` over so many processes, or in this one: a single other one gains nothing."""
    if processes <= 1:
        yield map
        return
    with worker_processes(processes) as pool:
        yield pool.map


def _real(
    folder: Path,
    tree: DictConfig,
    study: Study,
    simulation: SimulationConfig,
    tell: Callable[[str], None],
) -> dict[str, Path]:
    config = simulation.partition_config()
    dealt = folder / DATA
    shutil.rmtree(dealt / ".partition", ignore_errors=True)
    drawn_by = study.seed if config.seed is None else config.seed
    at = seed(drawn_by, "partition")
    manifests = partition(data_root(tree), config, at, dealt / ".partition")
    if not simulation.overlay:
        return manifests
    if len(simulation.overlay) != len(manifests):
        raise ValueError(
            f"simulation.overlay names {len(simulation.overlay)} scanners for {len(manifests)} "
            "hospitals; name one scanner a hospital"
        )
    seen = {}
    for (name, manifest), scanner in zip(manifests.items(), simulation.overlay, strict=True):
        tell(name)
        at = seed(study.seed, name, "scanner overlay")
        seen[name] = overlay_site(read_manifest(manifest), named_scanner(scanner), dealt / name, at)
    return seen


def _write_site(
    folder: Path, name: str, manifest: Path, study: Study, simulation: SimulationConfig
) -> None:
    settings = {
        "name": name,
        "manifest": os.path.relpath(manifest, folder),
        "device": "cuda" if simulation.on_gpu else "cpu",
        "policy": "policy.yaml",
    }
    # Invented or public data: nobody has to be protected.
    write_atomic(folder / "policy.yaml", OmegaConf.to_yaml(asdict(open_policy())).encode())
    write_atomic(folder / "site.yaml", OmegaConf.to_yaml(settings).encode())
    key = folder / "state" / KEY
    if not key.exists():
        # Nobody is protected in a simulation; a key from the seed makes its runs repeatable.
        text = f"{study.seed}/{name}/simulated key"
        private_folder(key.parent)
        replace_file(key, hashlib.sha256(text.encode()).digest())
