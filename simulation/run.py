"""One simulated run: compose, make the hospitals, run the engine, tell what came of it."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from common.config import compose, sent, study_of, travelling
from common.files import read_json, write_atomic, write_json
from common.locks import LOOKED_AT_S, held
from common.models.fit import check_fits
from common.models.registry import told_start
from common.schema import SettingsError
from common.study import Study
from server.checkpoint import check_beginning
from server.events import Tell, event_log
from server.progress import Progress
from server.run import RESULT
from server.tracking.relay import tracked
from simulation.config import SimulationConfig, data_root, simulation_of
from simulation.engines.run import run_engine
from simulation.sites import SITES, check_columns, prepare_sites

RUN, CONFIG, LOCK = "run.json", "config.yaml", ".lock"
ROOT = "data.root="


@dataclass(frozen=True)
class Simulation:
    """A simulated run, composed and checked; nothing has been done yet."""

    folder: Path
    overrides: list[str]
    tree: DictConfig
    study: Study
    settings: SimulationConfig
    weights: str | None
    """What the file that it starts from gives its network, in words."""


def composed(folder: Path, overrides: Sequence[str]) -> Simulation:
    """Return the run that the overrides describe.

    Raises:
        SettingsError: settings that do not fit together.
        ValueError: the network does not take the study's images.
    """
    # The folder is where it is; a run that was moved is still the same run.
    overrides = [override for override in overrides if not override.startswith("run.")]
    tree = compose(overrides)
    settings = simulation_of(tree)
    if settings.source == "real":
        # A run may be resumed from another working folder.
        overrides = [*(o for o in overrides if not o.startswith(ROOT)), f"{ROOT}{data_root(tree)}"]
        tree = compose(overrides)
    study = study_of(tree)
    sent(overrides)
    check_fits(study)
    check_beginning(study, None)
    # Before any hospital is made: the weights are here, and they fit.
    weights = told_start(study.model)
    return Simulation(folder.resolve(), overrides, tree, study, settings, weights)


def reopened(folder: Path) -> Simulation:
    """Return the run that a folder holds, to go on with it.

    Raises:
        SettingsError: the folder holds no run, or was made by another version.
    """
    path = folder / RUN
    if not path.is_file():
        raise SettingsError(f"{folder} holds no run ({RUN} is missing); give the folder of a run")
    about = read_json(path)
    if about["wardround"] != version("wardround"):
        raise SettingsError(
            f"{folder} was begun with wardround {about['wardround']}, this is "
            f"{version('wardround')}; resume with the version that it was begun with"
        )
    return composed(folder, about["overrides"])


def simulate(run: Simulation, show: Progress) -> dict[str, Any]:
    """Run it, from where it stands, and return the content of result.json.

    Raises:
        SettingsError: another process works in the folder, or it holds another run.
    """
    with _begun(run):
        done = _ended(run.folder)
        if done is not None:
            return done
        told = tracked(run.settings.tracking_config(), run.folder, run.study.name)
        with show.watching(run.folder), told:
            tell = event_log(run.folder)
            sites = _sites(run, tell)
            run_engine(run.folder, travelling(run.overrides), sites, run.settings)
        result: dict[str, Any] = read_json(run.folder / RESULT)
        return result


def make_hospitals(run: Simulation, show: Progress) -> list[Path]:
    """Make the run's hospitals and train nothing; return the site.yaml of each.

    Raises:
        SettingsError: another process works in the folder, or it holds another run.
    """
    with _begun(run), show.watching(run.folder):
        _sites(run, event_log(run.folder))
    return sorted((run.folder / SITES).glob("*/site.yaml"))


def _sites(run: Simulation, tell: Tell) -> list[str]:
    sites = prepare_sites(
        run.folder, run.tree, run.study, run.settings, lambda name: tell("make", site=name)
    )
    check_columns(run.folder, run.study)
    return sites


@contextmanager
def _begun(run: Simulation) -> Iterator[None]:
    if run.settings.of_others:
        raise SettingsError(
            f"{run.study.name} is made of other experiments; run it by itself, "
            "or give one of them to this command"
        )
    run.folder.mkdir(parents=True, exist_ok=True)
    with held(run.folder / LOCK, "works in this folder", LOOKED_AT_S):
        _write_about(run)
        yield


def _ended(folder: Path) -> dict[str, Any] | None:
    path = folder / RESULT
    if not path.exists():
        return None
    result: dict[str, Any] = read_json(path)
    return result if result["status"] in ("completed", "partial") else None


def _write_about(run: Simulation) -> None:
    path = run.folder / RUN
    about = {"overrides": run.overrides, "wardround": version("wardround")}
    if path.exists() and read_json(path) != about:
        raise SettingsError(
            f"{run.folder} holds another run (begun with {json.dumps(read_json(path)['overrides'])}"
            "); give another run.dir, or resume that one"
        )
    shown = OmegaConf.create({k: v for k, v in run.tree.items() if k != "run"})
    config, settings = run.folder / CONFIG, OmegaConf.to_yaml(shown, resolve=True)
    if path.exists() and config.exists() and config.read_text() != settings:
        raise SettingsError(
            f"{run.folder} was begun with the same choices, but the files of settings that they "
            "name have changed since; give another run.dir, or put the files back"
        )
    write_json(path, about)
    write_atomic(config, settings.encode())
