"""The systemd units, as systemd itself reads them."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

UNITS = Path(__file__).parents[2] / "docker" / "systemd"
NAMES = ("wardround-server", "wardround-courier", "wardround-trainer")
MOST_EXPOSED = {"wardround-server": 2.0, "wardround-courier": 2.0, "wardround-trainer": 1.0}


def _unit(name: str) -> dict[str, str]:
    """Return a unit's settings; what is set twice is joined with a blank."""
    found: dict[str, str] = {}
    for line in (UNITS / f"{name}.service").read_text().splitlines():
        key, equals, value = line.partition("=")
        if equals and not line.startswith("#"):
            found[key] = f"{found[key]} {value}" if key in found else value
    return found


@pytest.mark.parametrize("name", NAMES)
def test_a_service_has_its_own_user_and_no_privileges(name: str) -> None:
    unit = _unit(name)
    assert unit["User"] == name
    assert f"u {name} " in (UNITS / "wardround.sysusers.conf").read_text()
    assert unit["NoNewPrivileges"] == "yes"
    assert unit["ProtectSystem"] == "strict"
    assert unit["CapabilityBoundingSet"] == ""
    assert unit["Restart"] == "always"


def test_the_trainer_has_no_network() -> None:
    unit = _unit("wardround-trainer")
    assert unit["PrivateNetwork"] == "yes"
    assert unit["RestrictAddressFamilies"] == "AF_UNIX"


def test_a_trainer_that_crashes_leaves_no_memory_in_a_file() -> None:
    assert _unit("wardround-trainer")["LimitCORE"] == "0"


def test_the_courier_may_not_see_what_the_trainer_has() -> None:
    hidden = _unit("wardround-courier")["InaccessiblePaths"].split()
    state = _unit("wardround-trainer")["StateDirectory"]
    assert f"-/var/lib/{state}" in hidden


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
@pytest.mark.parametrize("name", NAMES)
def test_systemd_finds_no_fault(name: str, tmp_path: Path) -> None:
    # The programs are elsewhere here; systemd asks whether they are there.
    for each in NAMES:
        text = (UNITS / f"{each}.service").read_text()
        text = re.sub(r"/opt/wardround/bin/\S+", "/bin/true", text)
        (tmp_path / f"{each}.service").write_text(text)
    unit = tmp_path / f"{name}.service"
    found = subprocess.run(
        ["systemd-analyze", "verify", str(unit)], capture_output=True, text=True, timeout=60
    )
    assert (found.returncode, found.stderr) == (0, "")


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
@pytest.mark.parametrize("name", NAMES)
def test_a_service_is_hardly_exposed(name: str) -> None:
    found = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", str(UNITS / f"{name}.service")],
        capture_output=True,
        text=True,
        timeout=60,
    )
    level = re.search(r"exposure level for \S+: ([\d.]+)", found.stdout)
    assert level is not None, found.stderr
    assert float(level[1]) <= MOST_EXPOSED[name]
