"""The two engines that carry messages between ServerApp and ClientApps on one machine."""

import json
import logging
import os
from collections.abc import Sequence
from pathlib import Path

from flwr.app import Context, RecordDict
from flwr.clientapp import ClientApp
from flwr.common import EventType
from flwr.simulation.run_simulation import _run_simulation

from client.app import SITES_FOLDER
from client.app import app as hospital_app
from server.app import app as server_app
from server.studies import RUNS_FOLDER
from simulation.config import SimulationConfig
from simulation.environment import ENVIRONMENT
from simulation.grid import InProcessGrid


def run_engine(
    folder: Path,
    overrides: Sequence[str],
    sites: Sequence[str],
    simulation: SimulationConfig,
    client_app: ClientApp = hospital_app,
) -> None:
    """Run the ServerApp in the folder against one client_app a site, until it ends."""
    os.environ.update(ENVIRONMENT)
    os.environ[RUNS_FOLDER] = str(folder.parent)
    os.environ[SITES_FOLDER] = str(folder / "sites")
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
    if simulation.engine == "ray":
        _run_on_ray(context, len(sites), simulation, client_app)
    else:
        server_app(InProcessGrid(client_app, len(sites)), context)


def _run_on_ray(
    context: Context, num_sites: int, simulation: SimulationConfig, client_app: ClientApp
) -> None:
    logging.getLogger("flwr").setLevel(logging.ERROR)
    # The public run_simulation() is deprecated and gives the ServerApp an empty run configuration;
    # this is the function behind it. flwr is pinned.
    _run_simulation(
        num_supernodes=num_sites,
        client_app=client_app,
        server_app=server_app,
        server_app_context=context,
        exit_event=EventType.PYTHON_API_RUN_SIMULATION_LEAVE,
        backend_config={
            "init_args": {
                "num_cpus": simulation.actors,
                "log_to_driver": False,
                "include_dashboard": False,
            },
            "client_resources": {"num_cpus": 1, "num_gpus": simulation.gpus_per_actor},
        },
    )
