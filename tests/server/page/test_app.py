"""The API of the page: what it tells is what the run's files say, and nothing of other files."""

import json
import threading
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.testclient import TestClient

from common.files import read_json
from common.locks import held
from common.web import guarded
from server.events import EVENTS, event_log
from server.run import RESULT
from server.showing import write_report
from tests.builders import numbers_app
from tests.served import served
from tests.server.page.conftest import app_of, begun
from tests.server.report.conftest import make_result
from tests.server.report.test_in_browser import with_shift
from tests.server.test_run import PATIENTS, run


@pytest.fixture
def client(runs: Path) -> TestClient:
    return TestClient(app_of(runs))


def test_without_the_token_there_is_only_401(runs: Path) -> None:
    asked = TestClient(guarded(app_of(runs), "the-token"), base_url="http://127.0.0.1:1")
    for path in ("/", "/api/runs", "/api/runs/done", "/runs/done", "/assets/page.js"):
        assert asked.get(path).status_code == 401
    answer = asked.get("/api/runs", headers={"authorization": "Bearer the-token"})
    assert [line["id"] for line in answer.json()] == ["done"]


def test_the_page_tells_the_numbers_of_the_result(client: TestClient, runs: Path) -> None:
    result = read_json(runs / "done" / RESULT)
    name = result["headline"]
    (line,) = client.get("/api/runs").json()
    assert line["state"] == result["status"]
    assert line["mean"] == pytest.approx(result["final"]["mean"][name])
    assert (line["round"], line["rounds"], line["sites"]) == (3, 3, len(PATIENTS))
    told = client.get("/api/runs/done").json()
    for site, of in told["result"]["final"].items():
        assert of["value"] == result["final"]["sites"][site][name]["value"]
    parts = [part for record in result["rounds"] for part in record["sites"].values()]
    assert told["bytes"] == sum(part["bytes_sent"] + part["bytes_received"] for part in parts)
    assert told["seconds"] == pytest.approx(result["seconds"])


def test_curves_are_thinned_where_they_are_asked_for_so(client: TestClient) -> None:
    whole = client.get("/api/runs/done/curves").json()
    assert [round_ for round_, _ in whole["mean"]] == [0, 1, 2, 3]
    assert set(whole["values"]) == set(PATIENTS)
    assert client.get("/api/runs/done/curves?points=1").json()["mean"] == whole["mean"]


def test_the_matrix_and_the_distances_of_domain_shift_are_those_of_the_report(
    tmp_path: Path,
) -> None:
    folder, result = begun(tmp_path / "shifted"), with_shift(make_result())
    result["shift"]["distance"] = {"intensity": {"st-a": {"st-b": 0.25}, "st-b": {"st-a": 0.25}}}
    result["shift"]["floor"] = {"intensity": 0.1}
    (folder / RESULT).write_text(json.dumps(result))
    event_log(folder)("end", status="completed", reason=None)
    told = TestClient(app_of(tmp_path)).get("/api/runs/shifted").json()["result"]
    assert [row["model"] for row in told["matrix"]] == ["federated", "local"]
    assert [cell["value"] for cell in told["matrix"][0]["cells"]] == ["0.800"] * 3
    assert told["distances"][0]["rows"] == [["st-a", [None, 0.25]], ["st-b", [0.25, None]]]
    assert "3 helped" in told["summary"]


def test_a_run_nobody_works_on_is_interrupted(tmp_path: Path) -> None:
    folder = begun(tmp_path / "cut")
    event_log(folder)("start", rounds=9, done=0)
    client = TestClient(app_of(tmp_path))
    assert client.get("/api/runs/cut").json()["state"] == "interrupted"
    assert sorted(path.name for path in folder.iterdir()) == [EVENTS, "run.json"]
    with held(folder / ".lock", "works here"):
        assert client.get("/api/runs/cut").json()["state"] == "sites join"


def test_the_log_is_told_in_words_with_filters(client: TestClient) -> None:
    newest = client.get("/api/runs/done/log?last=1").json()
    assert [event["event"] for event in newest] == ["end"]
    of_one = client.get("/api/runs/done/log?site=st-a&all=1&text=reply").json()
    assert [event["told"] for event in of_one] == [f"site=st-a  round={n}" for n in (1, 2, 3)]


@pytest.mark.parametrize(
    "path",
    [
        "/api/runs/none",
        "/api/runs/..",
        "/api/runs/done/../../etc",
        "/api/runs/%2e%2e%2fdone",
        "/runs/none",
        "/runs/..%2f..%2fetc/report.html",
        "/runs/none/report.html",
        "/assets/serving.py",
        "/assets/..%2fserving.py",
    ],
)
def test_nothing_but_runs_is_served(path: str, client: TestClient) -> None:
    assert client.get(path).status_code == 404


def test_a_folder_without_run_json_is_no_run(tmp_path: Path) -> None:
    event_log(tmp_path)("start", rounds=1, done=0)
    (tmp_path / "secret").mkdir()
    event_log(tmp_path / "secret")("start", rounds=1, done=0)
    client = TestClient(app_of(tmp_path))
    assert client.get("/api/runs").json() == []
    assert client.get("/api/runs/secret").status_code == 404


def test_a_run_in_a_folder_of_a_sweep_has_a_name_of_two_parts(tmp_path: Path) -> None:
    run(begun(tmp_path / "sweep" / "0"), numbers_app(PATIENTS), "rounds=1")
    client = TestClient(app_of(tmp_path))
    assert [line["id"] for line in client.get("/api/runs").json()] == ["sweep/0"]
    assert client.get("/api/runs/sweep/0").json()["done"] == 1
    assert "sweep/0" in client.get("/runs/sweep/0").text


def test_a_report_is_served_with_a_policy_that_lets_nothing_run(tmp_path: Path) -> None:
    write_report(begun(tmp_path / "done"), make_result())
    app = guarded(app_of(tmp_path), "the-token")
    client = TestClient(app, base_url="http://127.0.0.1:1")
    headers = {"authorization": "Bearer the-token"}
    answer = client.get("/runs/done/report.html", headers=headers)
    assert answer.status_code == 200
    assert "script-src" not in answer.headers["content-security-policy"]
    assert "default-src 'none'" in answer.headers["content-security-policy"]


def test_events_follow_a_run_as_it_goes(tmp_path: Path) -> None:
    folder = begun(tmp_path / "live")
    event_log(folder)("start", rounds=3, done=0)
    seen: list[dict[str, Any]] = []
    with (
        served(app_of(tmp_path)) as address,
        httpx.stream("GET", f"{address}/api/runs/live/events", timeout=60) as stream,
    ):
        assert stream.headers["content-type"].startswith("text/event-stream")
        work = threading.Thread(
            target=run, args=(folder, numbers_app(PATIENTS), "rounds=3"), daemon=True
        )
        for line in stream.iter_lines():
            if line.startswith("data: "):
                seen.append(json.loads(line.removeprefix("data: ")))
                if len(seen) == 1:
                    work.start()
                if seen[-1]["ended"]:
                    break
        work.join()
    assert (seen[0]["state"], seen[0]["done"]) == ("interrupted", 0)
    assert (seen[-1]["state"], seen[-1]["done"]) == ("completed", 3)
    assert [state["done"] for state in seen] == sorted(state["done"] for state in seen)
