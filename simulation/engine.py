"""The two engines that carry messages between ServerApp and ClientApps on one machine."""

import importlib
import json
import logging
import os
from collections.abc import Sequence
from pathlib import Path

from flwr.app import Context, RecordDict

from server.app import RUN_FOLDER
from simulation.config import SimulationConfig
from simulation.environment import ENVIRONMENT

SITES_FOLDER = "WARDROUND_SITES"


def run_engine(
    folder: Path, overrides: Sequence[str], sites: Sequence[str], simulation: SimulationConfig
) -> None:
    """Run the ServerApp against one ClientApp a site until it ends."""
    os.environ.update(ENVIRONMENT)
    os.environ[RUN_FOLDER] = str(folder)
    os.environ[SITES_FOLDER] = str(folder / "sites")
    context = Context(
        run_id=0,
        node_id=0,
        node_config={},
        state=RecordDict(),
        run_config={
            "overrides": json.dumps(list(overrides)),
            "sites": json.dumps(list(sites)),
        },
    )
    if simulation.engine == "ray":
        _run_on_ray(context, len(sites), simulation)
    else:
        _run_in_process(context, len(sites))


def _run_in_process(context: Context, num_sites: int) -> None:
    from simulation.grid import InProcessGrid

    client, server = importlib.import_module("client.app"), importlib.import_module("server.app")
    server.app(InProcessGrid(client.app, num_sites), context)


def _run_on_ray(context: Context, num_sites: int, simulation: SimulationConfig) -> None:
    # The public run_simulation() is deprecated and gives the ServerApp an empty run configuration;
    # this is the function behind it. flwr is pinned.
    from flwr.common import EventType
    from flwr.simulation.run_simulation import _run_simulation

    logging.getLogger("flwr").setLevel(logging.ERROR)
    client, server = importlib.import_module("client.app"), importlib.import_module("server.app")
    _run_simulation(
        num_supernodes=num_sites,
        client_app=client.app,
        server_app=server.app,
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
