"""A coordinator at the centre's page: by TLS, with a log-in, and with a second thought."""

import json
import logging
import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
from starlette.testclient import TestClient
from starlette.types import Receive, Scope, Send

from common.certificates import new_key, signing_request
from server.events import event_log
from server.federation.enrolment import admit, revoke
from server.federation.home import Home
from server.page.centre import centre_app, centre_pages, sites_of
from server.page.door import PERSON
from server.presence import Presence, Word
from server.run import RESULT
from server.studies import STOP, StudyRun, ask, runs_in
from tests.browser import IN_A_BROWSER, chromium, grave_findings, opened
from tests.server.federation.homes import a_home
from tests.server.report.conftest import make_result

WORD = "four words apart"
SERVER = [
    sys.executable,
    "-c",
    "import sys, server.cli as c; sys.argv[0] = 'wardround-server'; c.main()",
]


@dataclass
class Centre:
    home: Home
    address: str

    @contextmanager
    def client(self) -> Iterator[httpx.Client]:
        context = ssl.create_default_context(cafile=str(self.home.ca_certificate))
        own = {"origin": self.address}
        with httpx.Client(base_url=self.address, verify=context, headers=own, timeout=90) as client:
            answer = client.post("/enter", data={"name": "anna", "password": WORD})
            assert answer.status_code == 303
            yield client


@pytest.fixture(scope="module")
def centre(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Centre]:
    now = datetime.now(UTC)
    home = a_home(tmp_path_factory.mktemp("centre") / "home", now=now, hosts=["localhost"])
    for name in ("st-a", "st-b", "st-c"):
        admit(home, signing_request(new_key(), name), name, now, 90)
    revoke(home, "st-c", now, "stolen")
    Presence(home.path).hear("st-a", Word(session="s", run="r", round=3))
    own = ["--home", str(home.path)]
    none = subprocess.run(
        [*SERVER, "page", *own], capture_output=True, text=True, check=False, timeout=120
    )
    assert (none.returncode, "wardround-server password NAME" in none.stderr) == (2, True)
    subprocess.run([*SERVER, "password", "anna", *own], input=f"{WORD}\n", text=True, check=True)
    with subprocess.Popen(
        [*SERVER, "page", "--port", "0", *own], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        told = json.loads(process.stdout.readline())["text"]
        yield Centre(home, told.split()[-1].rstrip("/"))
        process.terminate()


def asked(centre: Centre, name: str, **result: Any) -> str:
    run = ask(centre.home.path, name, "ab" * 32, [], ["st-a"], 60.0)
    event_log(run.folder)("start", rounds=4, done=0)
    if result:
        (run.folder / RESULT).write_text(json.dumps({**make_result(), **result}))
        event_log(run.folder)("end", **result)
    return run.folder.name


def test_the_sites_are_told_with_their_last_word(centre: Centre) -> None:
    with centre.client() as client:
        sites = {site["site"]: site for site in client.get("/api/sites").json()}
    assert sites == {site["site"]: site for site in sites_of(centre.home, datetime.now(UTC))}
    assert (sites["st-a"]["run"], sites["st-a"]["round"]) == ("r", 3)
    assert (sites["st-b"]["connected"], sites["st-b"]["heard_at"]) == (False, None)
    assert (sites["st-c"]["status"], sites["st-c"]["reason"]) == ("revoked", "stolen")


def test_only_tls_1_3_is_spoken(centre: Centre) -> None:
    context = ssl.create_default_context(cafile=str(centre.home.ca_certificate))
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with pytest.raises(httpx.ConnectError):
        httpx.get(centre.address, verify=context)


def test_by_no_other_name_than_the_certificates_a_session_is_given(centre: Centre) -> None:
    with centre.client() as client:
        assert client.get("/enter").status_code == 200
        assert client.get("/enter", headers={"host": "127.0.0.1"}).status_code == 421


def entered(centre: Centre) -> TestClient:
    """Return a client of the page in this process, which has torch already, behind its door."""
    app = centre_app(centre.home, centre_pages(centre.home), logging.getLogger("test"))

    async def door(scope: Scope, receive: Receive, send: Send) -> None:
        scope[PERSON] = "anna"
        await app(scope, receive, send)

    return TestClient(door)


def test_a_study_is_asked_for_as_on_the_command_line(centre: Centre) -> None:
    client = entered(centre)
    bad = client.post("/api/runs", json={"settings": ["experiment=smoke", "sites=st-z"]})
    assert (bad.status_code, "st-z is not admitted" in bad.json()["error"]) == (409, True)
    bad = client.post("/api/runs", json={"settings": ["rounds=no", "sites=all"]})
    assert (bad.status_code, "rounds" in bad.json()["error"]) == (409, True)
    assert client.post("/api/runs", json={"overrides": []}).status_code == 400
    told = client.post("/api/runs", json={"settings": ["experiment=smoke", "sites=all"]}).json()
    (line,) = [r for r in client.get("/api/runs").json() if r["id"] == told["id"]]
    asked_so = '{"settings": ["experiment=smoke", "sites=all"], "join_timeout_s": %s}'
    for wrong in ("-5", "1e999", "NaN"):
        bad = client.post("/api/runs", content=asked_so % wrong)
        assert (bad.status_code, len(runs_in(centre.home.path))) in [(400, 1), (409, 1)]
    run = next(run for run in runs_in(centre.home.path) if run.folder.name == told["id"])
    assert run.asked.sites == ["st-a", "st-b"]
    assert run.asked.digest == told["digest"]
    assert line["state"] == "waiting for its process"


def test_no_name_of_a_study_leads_out_of_the_folder_of_studies(centre: Centre) -> None:
    before = set(centre.home.path.parent.rglob("*"))
    settings = ["experiment=smoke", "name=a/../../../escaped/by_page", "sites=all"]
    bad = entered(centre).post("/api/runs", json={"settings": settings})
    assert (bad.status_code, "folders are called by it" in bad.json()["error"]) == (409, True)
    assert set(centre.home.path.parent.rglob("*")) == before


def test_a_study_is_stopped_and_gone_on_with_after_a_confirmation(centre: Centre) -> None:
    name = asked(centre, "one")
    folder = centre.home.runs / name
    with centre.client() as client:
        # Nor by the beginning of its name, which the command line takes.
        for path, word in ((name, "another"), (name[:-1], name[:-1])):
            unseen = client.post(f"/api/runs/{path}/stop", json={"confirmed": word})
            assert (unseen.status_code, (folder / STOP).exists()) == (409, False)
        assert client.post(f"/api/runs/{name}/stop", json={"confirmed": name}).status_code == 200
        assert (folder / STOP).exists()
        assert client.get(f"/api/runs/{name}").json()["state"] == "stopping"
        assert client.post(f"/api/runs/{name}/drop", json={"confirmed": name}).status_code == 404
        ended = asked(centre, "two", status="stopped", reason="the coordinator stopped the study")
        again = client.post(f"/api/runs/{ended}/stop", json={"confirmed": ended})
        assert (again.status_code, "nothing to stop" in again.json()["error"]) == (409, True)
        assert (
            client.post(f"/api/runs/{ended}/resume", json={"confirmed": ended}).status_code == 200
        )
        assert client.get(f"/api/runs/{ended}").json()["state"] == "waiting for its process"
    log = (centre.home.path / "logs" / "page.jsonl").read_text()
    assert f"anna: stop {name}" in log
    assert f"anna: resume {ended}" in log
    assert WORD not in log


def test_a_process_that_is_still_ending_is_told_of_and_not_waited_for(centre: Centre) -> None:
    name = asked(centre, "four")
    (centre.home.runs / name / STOP).touch()
    with centre.client() as client, StudyRun(centre.home.runs / name).working():
        client.timeout = 30
        answer = client.post(f"/api/runs/{name}/resume", json={"confirmed": name})
        assert (answer.status_code, "wait until it has ended" in answer.json()["error"]) == (
            409,
            True,
        )


@IN_A_BROWSER
def test_a_coordinator_logs_in_and_stops_a_study(centre: Centre) -> None:
    name = asked(centre, "three")
    with chromium() as browser:
        page, wrong = opened(browser, centre.address)
        assert grave_findings(page) == []
        page.get_by_label("Name").fill("anna")
        page.get_by_label("Password").fill(WORD)
        page.keyboard.press("Enter")
        page.get_by_role("link", name="Sites").click()
        page.get_by_text("stolen").wait_for()
        assert grave_findings(page) == []
        page.get_by_role("link", name="Start a study").click()
        assert grave_findings(page) == []
        page.get_by_role("link", name="Runs").click()
        page.get_by_role("link", name=name).click()
        stop = page.locator("#stop:enabled")
        stop.wait_for()
        stop.click()
        assert grave_findings(page) == []
        # The harmless answer has the focus.
        page.keyboard.press("Enter")
        assert not (centre.home.runs / name / STOP).exists()
        stop.click()
        page.get_by_role("dialog").get_by_role("button", name="Stop").click()
        page.get_by_text("Stopping.").wait_for()
        assert (centre.home.runs / name / STOP).exists()
        page.get_by_role("button", name="Log out").click()
        page.get_by_role("button", name="Log in").wait_for()
        assert wrong == []
