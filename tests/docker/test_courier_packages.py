"""The courier's image has what docker/courier.txt names, and nothing else."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ALONE = '''
"""Runs the courier's code where only the named distributions, and ours, can be imported."""
import importlib.metadata, json, pathlib, sys, tempfile

named = {name.lower().replace("_", "-") for name in sys.argv[1:]}
ours = {"client", "common", "configs"}
owners = importlib.metadata.packages_distributions()


class Gate:
    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        found = {owner.lower().replace("_", "-") for owner in owners.get(top, ())}
        # Namespaces such as google are shared by several; what nobody owns is Python's own.
        if top in ours or not found or found & named:
            return None
        raise ModuleNotFoundError(f"{name} is of {found}, which the courier has not", name=name)


sys.meta_path.insert(0, Gate())
import client.cli, client.daemon, client.node, client.remote
from common.bundle import code_free_bundle
from typer.testing import CliRunner

code_free_bundle()
assert CliRunner().invoke(client.cli.app, ["--help"]).exit_code == 0
with tempfile.TemporaryDirectory() as folder:
    client.remote.is_serving(pathlib.Path(folder, "trainer.sock"), 0.1)
    try:
        client.node.httpx.get("https://127.0.0.1:9")
    except client.node.httpx.HTTPError:
        pass
files = {}
for name in named:
    found = importlib.metadata.distribution(name)
    files |= {str(found.locate_file(file)): name for file in found.files or []}
paths = [getattr(module, "__file__", None) for module in sys.modules.values()]
loaded = {files[path] for path in paths if path in files}
tops = {name.partition(".")[0] for name in sys.modules}
print(json.dumps({"loaded": sorted(loaded), "modules": sorted(tops)}))
'''


def _named(file: Path) -> list[str]:
    lines = (line.partition("#")[0].strip() for line in file.read_text().splitlines())
    return [line for line in lines if line]


@pytest.fixture(scope="module")
def seen() -> dict[str, list[str]]:
    """What the courier loads with its own packages alone."""
    named = _named(ROOT / "docker" / "courier.txt")
    done = subprocess.run(
        [sys.executable, "-c", ALONE, *named],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, list[str]] = json.loads(done.stdout)
    return found


def test_the_courier_runs_with_the_packages_of_its_list_alone(seen: dict[str, list[str]]) -> None:
    assert "flwr" in seen["modules"]
    assert not {"torch", "monai", "opacus", "scipy", "hydra", "nibabel"} & set(seen["modules"])


def test_no_package_of_the_list_is_idle(seen: dict[str, list[str]]) -> None:
    named = {name.lower().replace("_", "-") for name in _named(ROOT / "docker" / "courier.txt")}
    assert named - set(seen["loaded"]) == set()


def test_every_package_of_the_list_has_one_version() -> None:
    pinned = {
        re.split("==", line)[0].lower().replace("_", "-")
        for line in _named(ROOT / "constraints.txt")
    }
    named = {name.lower().replace("_", "-") for name in _named(ROOT / "docker" / "courier.txt")}
    assert named - pinned == set()
