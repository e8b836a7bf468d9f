"""The API of the page: what it tells is what the run's files say, and nothing of other files."""

import asyncio
import json
import os
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.testclient import TestClient

from common.files import read_json
from common.locks import held
from common.web import ENDING, guarded
from server.events import EVENTS, event_log
from server.page.app import _changes
from server.page.runs import Runs
from server.page.view import line_of, overview_of
from server.run import RESULT
from server.showing import write_report
from server.studies import Attempt, StudyRun, ask, ask_to_stop
from tests.builders import numbers_app
from tests.served import served
from tests.server.page.conftest import app_of, begun
from tests.server.report.conftest import make_result
from tests.server.test_run import PATIENTS, run

FAILED = {"status": "failed", "reason": "quorum"}


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


def with_shift(result: dict[str, Any]) -> dict[str, Any]:
    sites = list(result["sites"])
    cell = {"value": 0.8, "low": 0.7, "high": 0.9, "n": 6, "status": "ok"}
    gain = {"gap": 0.1, "low": 0.05, "high": 0.2, "verdict": "helped"}
    summary = {"mean": 0.8, "worst": 0.8, "worst_site": sites[0], "spread": 0.0, "sites": 3}
    shift = {
        "metric": "dice",
        "matrix": {model: dict.fromkeys(sites, cell) for model in ("federated", "local")},
        "benefit": dict.fromkeys(sites, gain),
        "summary": {"federated": summary, "local": summary},
    }
    return {**result, "shift": shift}


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
        "/api/runs/..%2foutside",
        "/api/runs/%2e%2e/outside/log",
        "/runs/..%2foutside",
        "/runs/..%2foutside/report.html",
        "/runs/done/../../outside/report.html",
        "/runs/%2e%2e/outside/report.html",
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


def test_a_log_whose_last_line_was_cut_is_read_to_its_end(tmp_path: Path) -> None:
    folder = begun(tmp_path / "cut")
    event_log(folder)("start", rounds=3, done=0)
    with (folder / EVENTS).open("a") as file:
        file.write('{"time": 2, "event": "enr')
    client = TestClient(app_of(tmp_path))
    assert client.get("/api/runs/cut").json()["read"] == 1.0
    assert client.get("/api/runs").json()[0]["read"] == 1.0


def long_log(folder: Path, result: dict[str, Any]) -> None:
    """Write a run whose log is read in many pieces, with its end."""
    tell = event_log(begun(folder))
    tell("start", rounds=9, done=0)
    for number in range(1, 10):
        tell("round done", round=number, seconds=1.0, epsilon={"st-a": number / 10})
        tell("pad", text="y" * 2_000_000)
    (folder / RESULT).write_text(json.dumps(result))
    tell("end", status=result["status"], reason=result["reason"], epsilon={"st-a": 2.0})


def test_a_finished_run_is_told_as_finished_while_its_log_is_read(tmp_path: Path) -> None:
    long_log(tmp_path / "long", make_result(rounds=5))
    client, seen = TestClient(app_of(tmp_path)), []
    while not seen or seen[-1]["read"] < 1:
        seen += client.get("/api/runs").json()
    assert len(seen) > 2
    assert {(line["state"], line["epsilon"]) for line in seen} == {("completed", 2.5)}
    assert len({line["mean"] for line in seen}) == 1


def test_of_a_part_of_a_log_no_state_and_no_epsilon_is_told(tmp_path: Path) -> None:
    long_log(tmp_path / "long", {**make_result(), **FAILED})
    client, seen = TestClient(app_of(tmp_path)), []
    while not seen or seen[-1]["read"] < 1:
        seen.append(client.get("/api/runs/long").json())
    assert {(line["state"], line["epsilon"]) for line in seen[:-1]} == {("being read", None)}
    assert (seen[-1]["state"], seen[-1]["reason"]) == ("failed", "quorum")


def test_a_result_without_the_end_in_the_log_is_the_end(tmp_path: Path) -> None:
    folder = begun(tmp_path / "killed")
    event_log(folder)("start", rounds=3, done=0)
    (folder / RESULT).write_text(json.dumps({**make_result(), **FAILED}))
    client = TestClient(app_of(tmp_path))
    told = client.get("/api/runs/killed").json()
    assert (told["state"], told["reason"], told["ended"]) == ("failed", "quorum", True)
    # Somebody resumed it, and it was killed again: the old result is no end any more.
    os.utime(folder / RESULT, (1, 1))
    assert client.get("/api/runs/killed").json()["state"] == "interrupted"


def give_up(run_: StudyRun) -> None:
    run_.keep_attempt(Attempt(flower_run=1, begun_at=1.0, gave_up="three attempts in vain"))


def end(run_: StudyRun) -> None:
    (run_.folder / RESULT).write_text(json.dumps({**make_result(), **FAILED}))


@pytest.mark.parametrize("change", [give_up, end, ask_to_stop])
def test_a_study_of_the_daemon_stands_as_the_command_line_says(
    change: Callable[[StudyRun], None], tmp_path: Path
) -> None:
    study = ask(tmp_path, "one", "ab" * 32, [], ["st-a"], 60.0)
    event_log(study.folder)("start", rounds=4, done=0)
    change(study)
    (run_,) = Runs(tmp_path / "runs", of_daemon=True).all()
    told = overview_of(run_, 2**20)
    assert (told["state"], told["reason"]) == study.status()


def test_a_broken_file_of_the_daemon_costs_its_study_alone(tmp_path: Path) -> None:
    study = ask(tmp_path, "one", "ab" * 32, [], ["st-a"], 60.0)
    (study.folder / "flower.json").write_text("{")
    (run_,) = Runs(tmp_path / "runs", of_daemon=True).all()
    assert line_of(run_, 2**20)["state"] == "cannot be read"


def break_log(folder: Path) -> None:
    (folder / EVENTS).unlink()
    (folder / EVENTS).mkdir()


@pytest.mark.parametrize(
    "break_it",
    [
        break_log,
        lambda folder: (folder / RESULT).write_text("{"),
        lambda folder: (folder / RESULT).write_text('{"schema_version": 1, "status": "failed"}'),
    ],
)
def test_a_run_that_cannot_be_read_costs_itself_alone(
    break_it: Callable[[Path], object], tmp_path: Path
) -> None:
    for name in ("good", "bad"):
        event_log(begun(tmp_path / name))("start", rounds=2, done=0)
    break_it(tmp_path / "bad")
    client = TestClient(app_of(tmp_path))
    lines = {line["id"]: line["state"] for line in client.get("/api/runs").json()}
    assert lines == {"good": "interrupted", "bad": "cannot be read"}
    told = client.get("/api/runs/bad").json()
    assert (told["state"], bool(told["reason"])) == ("cannot be read", True)
    assert client.get("/api/runs/bad/curves").status_code == 200
    assert client.get("/api/runs/bad/log").status_code == 200


def test_what_a_site_tells_cannot_end_the_page(tmp_path: Path) -> None:
    tell = event_log(begun(tmp_path / "run"))
    tell("start", rounds=3, done=0)
    part = {"seconds": 1e308, "bytes_sent": 1, "bytes_received": 1, "train_loss": 1e308}
    for number in (1, 2):
        tell("round done", round=number, seconds=1.0, sites={"st-a": part})
    with (tmp_path / "run" / EVENTS).open("a") as file:
        file.write('{"time": "x", "event": "start"}\n{"time": NaN, "event": "end"}\n')
    told = TestClient(app_of(tmp_path)).get("/api/runs/run").json()
    assert (told["sites"][0]["seconds"], told["done"]) == (None, 2)


def test_a_run_that_was_removed_is_none(tmp_path: Path) -> None:
    event_log(begun(tmp_path / "gone"))("start", rounds=2, done=0)
    client = TestClient(app_of(tmp_path))
    assert client.get("/api/runs/gone").status_code == 200
    shutil.rmtree(tmp_path / "gone")
    assert client.get("/api/runs/gone").status_code == 404


def test_of_a_result_what_is_shown_is_read_once(runs: Path) -> None:
    (run_,) = Runs(runs).all()
    read: list[str] = []

    def status(result: dict[str, Any], _: float) -> str:
        read.append(result["status"])
        return read[-1]

    assert [run_.of_result(status) for _ in range(3)] == ["completed"] * 3
    assert read == ["completed"]


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


def test_a_stream_of_a_log_that_was_cut_waits_between_its_looks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = begun(tmp_path / "cut")
    (folder / EVENTS).write_text('{"time": 1, "event": "start", "rounds": 3, "done": 0}\n{"time"')
    run_ = Runs(tmp_path).named("cut")
    assert run_ is not None
    waits: list[float] = []

    async def wait(seconds: float) -> None:
        waits.append(seconds)

    async def followed() -> list[str]:
        scope: dict[str, Any] = {ENDING: lambda: len(waits) == 40}
        return [text async for text in _changes(run_, scope)]

    monkeypatch.setattr("server.page.app.asyncio.sleep", wait)
    told = asyncio.run(followed())
    assert waits == [1.0] * 40
    assert [text == ": alive\n\n" for text in told] == [False, True, True]
