import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from ray.cluster_utils import Cluster

from simulation.environment import ENVIRONMENT
from tests.hospitals import Hospitals
from tests.integration.six_hospitals import Left, ran

NODES = 3
NODE = {"num_cpus": 1, "object_store_memory": 2**27, "include_dashboard": False}
ACTORS = f"simulation.actors={NODES}"


@pytest.fixture(scope="module")
def one_node(tmp_path_factory: pytest.TempPathFactory, hospitals: Hospitals) -> Left:
    folder = tmp_path_factory.mktemp("one") / "study"
    return ran(folder, hospitals, "simulation.engine=ray", ACTORS)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    # A folder of its own, which Ray writes the address of the last cluster into, and a short one,
    # as its sockets lie there.
    with tempfile.TemporaryDirectory(prefix="ray") as folder, pytest.MonkeyPatch.context() as patch:
        for name, value in {**ENVIRONMENT, "RAY_TMPDIR": folder}.items():
            patch.setenv(name, value)
        found = Cluster(initialize_head=True, head_node_args=dict(NODE))
        try:
            for _ in range(NODES - 1):
                found.add_node(**NODE)
            yield found
        finally:
            found.shutdown()


@pytest.mark.parametrize("by", ["its address", "auto"])
def test_one_node_and_three_leave_the_same(
    one_node: Left, cluster: Cluster, tmp_path: Path, hospitals: Hospitals, by: str
) -> None:
    address = "auto" if by == "auto" else cluster.address
    three = ran(tmp_path / "three", hospitals, f"simulation.address={address}", ACTORS)
    assert three == one_node
