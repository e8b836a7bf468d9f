import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ray.cluster_utils import Cluster

from simulation.environment import ENVIRONMENT
from tests.hospitals import Hospitals
from tests.integration.command import sim

NODES = 3
NODE = {"num_cpus": 1, "object_store_memory": 2**27, "include_dashboard": False}


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    found = Cluster(initialize_head=True, head_node_args=dict(NODE))
    try:
        for _ in range(NODES - 1):
            found.add_node(**NODE)
        yield found
    finally:
        found.shutdown()


def test_one_node_and_three_give_the_same_bytes(
    runner: Any, cluster: Cluster, tmp_path: Path, hospitals: Hospitals
) -> None:
    one = runner("one")
    folder = tmp_path / "three"
    hospitals.given(folder, "experiment=smoke")
    done = sim(
        "experiment=smoke",
        f"simulation.address={cluster.address}",
        f"simulation.actors={NODES}",
        f"run.dir={folder}",
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert one["status"] == json.loads((folder / "result.json").read_text())["status"]
    assert (folder / "model.safetensors").read_bytes() == runner.bytes_of("one")
