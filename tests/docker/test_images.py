"""What the Dockerfiles and the compose files promise, read from the files themselves."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

DOCKER = Path(__file__).parents[2] / "docker"
USERS = {"server": 10001, "courier": 10002, "trainer": 10003}
FILE_OF = {
    "server": "server.Dockerfile",
    "courier": "site.Dockerfile",
    "trainer": "site.Dockerfile",
}
SITES = ("university", "county", "rural")


def _stages(file: str) -> dict[str, tuple[str, str]]:
    """Return each stage's base and text, by its name."""
    text = (DOCKER / file).read_text()
    parts = re.split(r"^FROM (\S+) AS (\S+)$", text, flags=re.MULTILINE)[1:]
    return {parts[i + 1]: (parts[i], parts[i + 2]) for i in range(0, len(parts), 3)}


def _services(file: str) -> dict[str, dict[str, Any]]:
    """Return a compose file's services, with what they extend."""
    found: dict[str, dict[str, Any]] = yaml.safe_load((DOCKER / file).read_text())["services"]
    base = yaml.safe_load((DOCKER / "base.yaml").read_text())["services"]
    return {
        name: {**base[service["extends"]["service"]], **service} for name, service in found.items()
    }


ALL = [(file, name) for file in ("compose.yaml", "compose.site.yaml") for name in _services(file)]


@pytest.mark.parametrize("image", USERS)
def test_an_image_runs_as_its_own_user_and_tells_how_it_is(image: str) -> None:
    _, last = _stages(FILE_OF[image])[image]
    assert re.findall(r"^USER (\d+):\d+$", last, re.MULTILINE) == [str(USERS[image])]
    assert last.count("HEALTHCHECK") == 1


@pytest.mark.parametrize("image", USERS)
def test_the_last_stage_installs_nothing(image: str) -> None:
    stages = _stages(FILE_OF[image])
    name = image
    while name in stages:
        base, text = stages[name]
        assert not re.search(r"pip.* install|apt-get|gcc|curl", text)
        name = base
    assert name == "${BASE}"


def test_what_is_installed_has_one_version() -> None:
    for file in set(FILE_OF.values()):
        for _, text in _stages(file).values():
            joined = text.replace("\\\n", " ")
            for line in re.findall(r"pip --python .*", joined):
                assert "-c constraints.txt" in line
    bases = re.findall(r"^ARG BASE=(\S+)$", (DOCKER / "site.Dockerfile").read_text(), re.MULTILINE)
    assert bases == ["docker.io/library/python:3.11.14-slim-bookworm"]
    assert f"ARG BASE={bases[0]}" in (DOCKER / "server.Dockerfile").read_text()


def test_the_courier_installs_its_list_and_nothing_that_it_asks_for() -> None:
    _, text = _stages("site.Dockerfile")["courier-packages"]
    assert "--no-deps" in text
    assert "-r courier.txt ." in text
    assert "torch " not in text


@pytest.mark.parametrize(("file", "name"), ALL)
def test_a_container_is_read_only_and_has_no_privileges(file: str, name: str) -> None:
    service = _services(file)[name]
    assert service["read_only"] is True
    assert service["init"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert "privileged" not in service
    assert "user" not in service


@pytest.mark.parametrize(("file", "name"), [each for each in ALL if "trainer" in each[1]])
def test_a_trainer_has_no_network_and_shares_the_sockets_folder_alone(file: str, name: str) -> None:
    services = _services(file)
    courier = services[name.replace("trainer", "courier")]
    trainer = services[name]
    assert trainer["network_mode"] == "none"
    assert "networks" not in trainer
    both = set(trainer["volumes"]) & set(courier["volumes"])
    writable = {volume for volume in both if not volume.endswith(":ro")}
    assert {volume.rpartition(":")[2] for volume in writable} == {"/site/state/trainer"}
    images = [volume for volume in trainer["volumes"] if ":/data" in volume]
    assert len(images) == 1
    assert images[0].endswith(":ro")
    assert not [volume for volume in courier["volumes"] if ":/data" in volume]


def test_the_couriers_share_a_network_with_the_server_and_with_no_other_hospital() -> None:
    services = _services("compose.yaml")
    assert set(services["server"]["networks"]) == set(SITES)
    for name in SITES:
        assert services[f"{name}-courier"]["networks"] == [name]


def test_only_the_servers_one_port_is_open() -> None:
    services = _services("compose.yaml")
    open_ports = {name: s["ports"] for name, s in services.items() if "ports" in s}
    assert open_ports == {"server": ["${SERVER_ADDRESS:-127.0.0.1}:8443:8443"]}


def test_the_example_names_every_variable() -> None:
    text = "".join((DOCKER / f"{f}.yaml").read_text() for f in ("base", "compose", "compose.site"))
    told = set(re.findall(r"^(\w+)=", (DOCKER / ".env.example").read_text(), re.MULTILINE))
    assert set(re.findall(r"\$\{(\w+)", text)) | {"COMPOSE_PROJECT_NAME"} == told


def test_the_bill_of_materials_is_that_of_the_constraints() -> None:
    told = json.loads((DOCKER / "sbom.cdx.json").read_text())["components"]
    pinned = (DOCKER.parent / "constraints.txt").read_text().split()
    assert sorted(f"{part['name']}=={part['version']}" for part in told) == sorted(pinned)
