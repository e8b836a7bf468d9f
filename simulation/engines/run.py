"""Runs the ServerApp against one ClientApp a site, on the engine that the simulation asks for."""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from flwr.app import Context, RecordDict
from flwr.clientapp import ClientApp

from client.app import SITES_FOLDER
from client.app import app as hospital_app
from common.config import load_study
from common.kept_memory import keep_freed_memory
from common.study import Study
from server.app import app as server_app
from server.checkpoint import CHECKPOINT
from server.events import Tell, event_log
from server.studies import RUNS_FOLDER
from simulation.config import SimulationConfig
from simulation.engines.choice import Chosen, saved_s
from simulation.engines.estimate import training_s
from simulation.engines.grid import Engine, SimulatedGrid
from simulation.engines.inprocess import InProcess
from simulation.environment import ENVIRONMENT
from simulation.scenario import Scenario, check_scenario


def run_engine(
    folder: Path,
    overrides: Sequence[str],
    sites: Sequence[str],
    simulation: SimulationConfig,
    client_app: ClientApp = hospital_app,
) -> None:
    """Run the ServerApp in the folder against one client_app a site, until it ends."""
    environment = {
        **ENVIRONMENT,
        RUNS_FOLDER: str(folder.parent),
        SITES_FOLDER: str(folder / "sites"),
    }
    os.environ.update(environment)
    # In this process hospitals train, unless it is for actors from the start.
    keep_freed_memory()
    context = Context(
        run_id=0,
        node_id=0,
        node_config={},
        state=RecordDict(),
        run_config={
            "overrides": json.dumps(list(overrides)),
            "sites": json.dumps(list(sites)),
            "run": folder.name,
        },
    )
    tell = event_log(folder)
    study, scenario = load_study(overrides), simulation.scenario_config()
    if scenario is not None:
        check_scenario(scenario, study, sites)
    here = InProcess(client_app, len(sites))
    actors = partial(_actors, client_app, len(sites), simulation, study, environment, tell)
    engine = _chosen(here, actors, simulation, study, folder, tell)
    if scenario is not None:
        engine = Scenario(engine, scenario, study, sites, tell)
    try:
        server_app(SimulatedGrid(engine), context)
    finally:
        engine.end()


def _chosen(
    here: InProcess,
    start_actors: Callable[[], Engine],
    simulation: SimulationConfig,
    study: Study,
    folder: Path,
    tell: Tell,
) -> Engine:
    elsewhere = simulation.on_gpu or simulation.address is not None
    if simulation.engine == "ray" or (simulation.engine == "auto" and elsewhere):
        return start_actors()
    if simulation.engine == "inprocess" or simulation.actors == 1:
        return here
    if not (folder / CHECKPOINT).exists():
        # A run that goes on has fewer rounds left than the study has.
        left_s = training_s(study, sorted((folder / "sites").glob("*/site.yaml")))
        if saved_s(left_s, min(simulation.actors, here.num_nodes), 0, 0.0, 0.0) > 0:
            tell("engine", name="ray", actors=simulation.actors, left_s=round(left_s))
            return start_actors()
    return Chosen(here, start_actors, simulation.actors, study.rounds, tell)


def _actors(
    client_app: ClientApp,
    num_nodes: int,
    simulation: SimulationConfig,
    study: Study,
    environment: Mapping[str, str],
    tell: Tell,
) -> Engine:
    # Imported where it is used: it takes as long as a small study.
    from simulation.engines.actors import Actors
    from simulation.engines.gpu_share import measured_gpu_share
    from simulation.engines.resources import Resources

    share = simulation.gpus_per_actor
    resources = Resources(
        actors=simulation.actors,
        gpus_per_actor=measured_gpu_share(study) if isinstance(share, str) else share,
        address=simulation.address,
        environment=environment,
    )
    return Actors(client_app, num_nodes, resources, tell)
