"""Studies over a centre and two sites that are real processes: each ends as it must."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from server.presence import Presence
from server.studies import ask_to_stop, go_on
from simulation.chaos.federation import AskedStudy, Federation, SitePlace
from simulation.chaos.hospitals import Undisturbed
from simulation.chaos.waiting import until
from tests.integration.network.foreign import answers_of, begin_foreign_run

TINY = ["experiment=smoke", "rounds=2", "training.local_steps=4"]
LONG = ["experiment=smoke", "rounds=2", "training.local_steps=40"]
Expect = Callable[[list[str]], Undisturbed]


@pytest.fixture(scope="module")
def ward(federation: Federation) -> Federation:
    federation.start_server()
    federation.start_sites()
    return federation


def _assert_undisturbed(ward: Federation, study: AskedStudy, expected: Undisturbed) -> None:
    assert study.wait() == "completed", study.reason
    assert study.model() == expected.model
    assert all(part == sorted(ward.sites) for part in study.participants())
    for name, site in ward.sites.items():
        assert site.charges(study.digest) == expected.charges[name]


def _in_round(site: SitePlace, study: AskedStudy, number: int) -> None:
    def there() -> bool:
        status = site.status()
        return status.study == study.digest and status.round == number

    until(f"{site.name} works on round {number}", there, 120.0)


def _site_verb(site: SitePlace, *arguments: str) -> str:
    command = [sys.executable, "-m", "client.cli", *arguments, "--site", str(site.yaml)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return done.stdout


@pytest.mark.parametrize("coded", [[], ["compression=int8", "compression.up=null", "rounds=3"]])
def test_a_networked_study_has_the_bytes_of_the_simulated_one(
    coded: list[str], ward: Federation, expected: Expect
) -> None:
    overrides = [*TINY, "name=same", *coded]
    study = ward.run(overrides)
    _assert_undisturbed(ward, study, expected(overrides))


def test_either_half_of_a_site_killed_within_a_round_changes_nothing(
    ward: Federation, expected: Expect
) -> None:
    overrides = [*LONG, "rounds=3", "name=halves"]
    study, site = ward.run(overrides), ward.sites["north"]
    for number, kind in ((2, "trainer"), (3, "node")):
        _in_round(site, study, number)
        ward.processes.kill(kind, site.folder.name)
    _assert_undisturbed(ward, study, expected(overrides))


def test_a_server_killed_within_a_round_resumes_by_itself(
    ward: Federation, expected: Expect
) -> None:
    overrides = [*LONG, "name=kill-server"]
    study = ward.run(overrides)
    _in_round(ward.sites["north"], study, 2)
    ward.processes.kill("server")
    ward.start_server()
    _assert_undisturbed(ward, study, expected(overrides))


def test_a_stopped_study_stops_within_a_batch_and_resumes_to_the_same_bytes(
    ward: Federation, expected: Expect
) -> None:
    overrides = [*LONG, "rounds=3", "name=stopped"]
    study, site = ward.run(overrides), ward.sites["north"]
    _in_round(site, study, 2)
    ask_to_stop(study.run)
    assert study.wait() == "stopped"
    assert study.run.rounds_done() == 1
    presence = Presence(ward.home.path)

    def idle() -> bool:
        words = [presence.of(name) for name in ward.sites]
        return all(heard is not None and not heard.word.run for heard in words)

    until("no site works on it", idle, 30.0)
    assert all(len(site.charges(study.digest)) <= 2 for site in ward.sites.values())
    go_on(study.run)
    _assert_undisturbed(ward, study, expected(overrides))


def test_a_bundle_with_code_is_refused_and_its_code_not_run(
    ward: Federation, tmp_path: Path
) -> None:
    secret = ward.sites["north"].folder / "site.yaml"
    taken, answers = tmp_path / "taken", tmp_path / "answers.json"
    begin_foreign_run(
        ward.home, {"secret": str(secret), "taken": str(taken), "answers": str(answers)}
    )
    until("the foreign server has its answers", answers.exists, 120.0)
    told = answers_of(answers)
    assert len(told) == len(ward.sites)
    for answer in told:
        body = json.loads(answer["body"]["json"])
        assert (answer["body"]["kind"], body["code"]) == ("Refusal", "bundle")
    assert not taken.exists()
    assert secret.read_text() not in json.dumps(told)
    assert "which is not installed here" in ward.sites["north"].status().last_error


def test_models_of_single_sites_travel_by_turns_that_every_site_agrees_to(
    ward: Federation,
) -> None:
    for site in ward.sites.values():
        site.set_policy("studies", approved=None)
    alone = ["evaluation.personal_rounds=1", "evaluation.profile=false", "rounds=1"]
    study = ward.run([*TINY, "name=turned", "evaluation=shift", *alone])
    assert study.wait() == "completed", study.reason

    def turns(kind: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "server.cli", "turns", study.run.folder.name]
        command += ["--kind", kind, "--home", str(ward.home.path), "--json"]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    early = turns("ensemble")
    assert early.returncode != 0
    assert "--kind own-models" in early.stderr
    for kind in ("own-models", "ensemble", "personal"):
        done = turns(kind)
        assert done.returncode == 0, done.stderr
    result = study.run.result()
    assert result is not None
    single = [f"{kind}/{name}" for kind in ("local", "personal") for name in ward.sites]
    for model in (*single, "ensemble"):
        cells = result["shift"]["matrix"][model]
        assert {site: cell["status"] for site, cell in cells.items()} == dict.fromkeys(
            ward.sites, "ok"
        )
    assert "local/north" in (study.run.folder / "report.html").read_text()


def test_a_study_waits_for_its_approval_and_runs_when_it_has_it(
    ward: Federation, expected: Expect
) -> None:
    overrides, site = [*TINY, "name=asked"], ward.sites["north"]
    site.set_policy("studies", approved=[])
    study = ward.run(overrides)
    study.wait_for("waiting")
    (proposed,) = json.loads(_site_verb(site, "studies", "--json"))
    assert (proposed["digest"], proposed["status"]) == (study.digest, "proposed")
    assert study.run.status()[0] == "running"
    assert not site.charges(study.digest)
    _site_verb(site, "approve", study.digest[:16])
    _assert_undisturbed(ward, study, expected(overrides))


def test_a_rejected_study_ends_without_the_site_and_says_so(ward: Federation) -> None:
    site = ward.sites["north"]
    site.set_policy("studies", approved=[])
    study = ward.run([*TINY, "name=rejected"], join_timeout_s=12.0)
    study.wait_for("waiting")
    _site_verb(site, "reject", study.digest)
    assert study.wait() == "partial"
    assert "north" in study.reason
    assert study.digest in study.reason
    assert study.participants() == [["south"], ["south"]]
    assert not site.charges(study.digest)
