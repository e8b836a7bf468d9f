"""What the actors are given, and the Ray that gives it: one of this run's own, or a cluster."""

import logging
import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import ray
from ray._private.utils import read_ray_address

from common.schema import SettingsError

CONNECT_S = 5.0
"""How long a cluster may take to be reached."""


@dataclass(frozen=True, kw_only=True)
class Resources:
    """What the actors are given."""

    actors: int
    gpus_per_actor: float = 0.0
    address: str | None = None
    """Of a Ray cluster, auto: the one that RAY_ADDRESS or the last ray start on this machine names;
    None: Ray is started for this run alone."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """Of each actor's process."""


def begin(resources: Resources) -> None:
    """Start Ray, or connect this process to the cluster.

    Raises:
        SettingsError: no cluster answers, or Ray has not what the actors need.
    """
    os.environ.update(resources.environment)
    address = _address(resources.address)
    about: dict[str, Any] = {"address": address}
    if resources.address is None:
        about |= {"num_cpus": resources.actors, "include_dashboard": False}
    try:
        host, _, port = address.rpartition("/")[2].rpartition(":")
        if host and port.isdecimal():
            # Ray itself would look for minutes.
            socket.create_connection((host, int(port)), CONNECT_S).close()
        ray.init(**about, log_to_driver=False, logging_level=logging.ERROR)
    except OSError as error:
        raise _no_cluster(resources.address) from error
    _check(resources)


def _address(asked: str | None) -> str:
    """Return what Ray is to be called with.

    For auto Ray itself would take any Ray of this machine, also that of another run: its actors
    have all of its CPUs, and it ends with it.
    """
    if asked != "auto":
        return asked or "local"
    found = os.environ.get("RAY_ADDRESS") or read_ray_address()
    if not found:
        raise _no_cluster(asked)
    return str(found)


def _no_cluster(asked: str | None) -> SettingsError:
    return SettingsError(
        f"simulation.address={asked}: no Ray cluster answers there; start one with "
        "ray start --head, or leave the setting out"
    )


def _check(resources: Resources) -> None:
    here = ray.cluster_resources()
    for what, wanted in (
        ("CPU", resources.actors),
        ("GPU", resources.actors * resources.gpus_per_actor),
    ):
        if here.get(what, 0) < wanted:
            ray.shutdown()
            raise SettingsError(
                f"simulation.actors={resources.actors} with simulation.gpus_per_actor="
                f"{resources.gpus_per_actor:g} need {wanted:g} {what}, and Ray has "
                f"{here.get(what, 0):g}; ask for fewer"
            )
