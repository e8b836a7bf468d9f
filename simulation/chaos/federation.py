"""A federation of real processes on this machine: a centre and its hospitals, over mutual TLS."""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import yaml

from client.enrolment import enroll, join
from client.remote import is_serving
from client.status import NodeStatus, read_status
from common.config import load_study, study_digest, travelling
from common.files import write_json
from server.events import EVENTS
from server.federation.enrolment import admit
from server.federation.home import FederationSettings, Home, make_home
from server.studies import StudyRun, ask
from simulation.chaos.hospitals import Charges, charges_of, copy_hospitals, site_folders
from simulation.chaos.processes import Processes
from simulation.chaos.proxy import Proxy
from simulation.chaos.waiting import answers, free_port, until

START_S = 240.0
STUDY_S = 400.0
HOST = "127.0.0.1"


@dataclass(frozen=True)
class SitePlace:
    """Where a site of the federation lies."""

    name: str
    folder: Path

    @property
    def yaml(self) -> Path:
        """Its settings."""
        return self.folder / "site.yaml"

    @property
    def state(self) -> Path:
        """What it remembers."""
        return self.folder / "state"

    @property
    def socket(self) -> Path:
        """Where its trainer listens."""
        return self.state / "trainer" / "trainer.sock"

    def status(self) -> NodeStatus:
        """Return what its node said last."""
        return read_status(self.state) or NodeStatus()

    def charges(self, digest: str) -> Charges:
        """Return what its ledger says of a study."""
        return charges_of(self.folder, digest)

    def set_policy(self, group: str, **fields: object) -> None:
        """Change fields of the site's policy."""
        path = self.folder / "policy.yaml"
        policy = yaml.safe_load(path.read_text())
        policy[group] |= fields
        path.write_text(yaml.safe_dump(policy))


class Federation:
    """The handles of a federation; leaving the block ends every process of it."""

    def __init__(self, folder: Path, made: Path, names: Sequence[str]) -> None:
        """folder: empty, with a short path, since a Unix socket's path is short.

        made: the hospitals (hospitals.py). names: those that take part.
        """
        copy_hospitals(made, folder)
        self.port = free_port()
        settings = FederationSettings(name="Chaos", hosts=[HOST], port=self.port)
        self.home: Home = make_home(folder / "home", settings, datetime.now(UTC))
        self.processes = Processes(folder / "logs")
        places = site_folders(folder)
        self.sites = {name: SitePlace(name, places[name]) for name in names}
        self.proxies: dict[str, Proxy] = {}
        for site in self.sites.values():
            self.enrol(site)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.processes.end_all()
        for proxy in self.proxies.values():
            proxy.close()

    def enrol(self, site: SitePlace, now: datetime | None = None, days: int = 180) -> None:
        """Admit a site, or renew its certificate. now: the clock of the centre; days: valid."""
        request = enroll(site.state, site.name)
        at = now or datetime.now(UTC)
        admission = admit(self.home, request, site.name, at, days)
        join(site.state, admission.to_bytes(), datetime.now(UTC))
        if site.name in self.proxies:
            self._through(site, self.proxies[site.name])

    def put_between(self, *names: str) -> None:
        """Put a network that can be cut between sites and the centre, before they start."""
        for name in names:
            self.proxies[name] = Proxy(self.port)
            self._through(self.sites[name], self.proxies[name])

    def start_server(self) -> None:
        """Start the centre, and wait until its door is open."""
        self.begin_server()
        self.wait_for_door()

    def begin_server(self) -> None:
        """Start the centre and do not wait."""
        self.processes.begin(
            "server",
            "server.cli",
            "start",
            *("--listen", HOST, "--home", str(self.home.path)),
            *("--health-port", str(free_port()), "--metrics-port", str(free_port())),
        )

    def wait_for_door(self) -> None:
        """Wait until the centre's public door is open."""
        until("the door is open", lambda: answers(self.port), START_S)

    def start_sites(self, *names: str) -> None:
        """Start sites, all where none is named, and wait until they are connected and serve."""
        chosen = [self.sites[name] for name in names or self.sites]
        began = time.time()
        for site in chosen:
            self.begin_site(site.name)
        for site in chosen:
            self.wait_for_site(site, began)

    def begin_site(self, name: str, environment: Mapping[str, str] | None = None) -> None:
        """Start a site and do not wait."""
        arguments = ("start", "--site", str(self.sites[name].yaml))
        self.processes.begin(name, "client.cli", *arguments, environment=environment)

    def end_site(self, name: str) -> None:
        """End a site's daemon, as its IT does."""
        pid = self.processes.find("site", self.sites[name].folder.name)
        if pid is not None:
            self.processes.end(pid)

    def wait_for_site(self, site: SitePlace, since: float = 0.0) -> None:
        """Wait until a site is connected, and its trainer serves. since: Unix time."""

        def here() -> bool:
            status = site.status()
            return status.connected and status.since >= since and is_serving(site.socket)

        until(f"{site.name} is connected and its trainer serves", here, START_S)

    def run(
        self, overrides: Sequence[str], names: Sequence[str] = (), join_timeout_s: float = 120.0
    ) -> "AskedStudy":
        """Ask for a study, as `wardround-server run --detach` does."""
        travels = travelling(overrides)
        study = load_study(travels)
        digest = study_digest(study)
        agreed = sorted(names or self.sites)
        run = ask(self.home.path, study.name, digest, travels, agreed, join_timeout_s)
        return AskedStudy(run, digest)

    def _through(self, site: SitePlace, proxy: Proxy) -> None:
        place = site.state / "federation" / "federation.json"
        write_json(place, {**json.loads(place.read_text()), "port": proxy.port})


@dataclass(frozen=True)
class AskedStudy:
    """A study that was asked for."""

    run: StudyRun
    digest: str

    def events(self) -> list[dict[str, Any]]:
        """Return what has happened so far."""
        path = self.run.folder / EVENTS
        lines = path.read_text().splitlines() if path.exists() else []
        return [json.loads(line) for line in lines if line.endswith("}")]

    def told(self, event: str, **fields: object) -> list[dict[str, Any]]:
        """Return the events of a name that have these fields."""
        return [
            told
            for told in self.events()
            if told["event"] == event and all(told.get(k) == v for k, v in fields.items())
        ]

    def wait_for(self, event: str, deadline_s: float = STUDY_S, **fields: object) -> None:
        """Wait until something has happened."""
        until(f"{event} {fields or ''}", lambda: bool(self.told(event, **fields)), deadline_s)

    def wait(self, deadline_s: float = STUDY_S) -> str:
        """Wait for the end; return the status."""

        def over() -> str | None:
            status, _ = self.run.status()
            return None if status in ("running", "stopping") else status

        return until(f"{self.run.folder.name} has ended", over, deadline_s)

    @property
    def reason(self) -> str:
        """Why it ended as it did."""
        return self.run.status()[1]

    def model(self) -> bytes:
        """Return the bytes of the model."""
        return (self.run.folder / "model.safetensors").read_bytes()

    def tensors(self) -> bytes:
        """Return the bytes of the model's tensors, without the header that names the study."""
        raw = self.model()
        return raw[8 + int.from_bytes(raw[:8], "little") :]

    def participants(self) -> list[list[str]]:
        """Return who took part in each round."""
        result = self.run.result()
        assert result is not None
        return [each["participants"] for each in result["rounds"]]
