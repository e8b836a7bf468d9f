"""A site's own page: what its ledger, its approvals and its logs say, and an answer to a study."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from client.approval import Approvals
from client.cli_studies import person
from client.log import LOG
from client.privacy.ledger import ledgers_in
from client.privacy.ledger_export import default_delta
from client.site import load_site
from client.site_page import SitePages, _curves, log_entries
from client.trainer import trainer_at
from common.config import study_digest
from common.daemon_log import daemon_log
from common.web import PARAMETER, guarded
from tests.browser import IN_A_BROWSER, chromium, grave_findings, opened
from tests.builders import (
    PICTURES,
    PRIVATE,
    initial_weights,
    pictures_site,
    request_for,
    study_from,
)
from tests.served import served

STUDY = (*PICTURES, *PRIVATE)
DIGEST = study_digest(study_from(*STUDY))
OTHER = (*PICTURES, "rounds=5", "name=another")
TOKEN = "the-token"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A site that trained one round of a study; another one waits for an answer."""
    path = pictures_site(tmp_path_factory.mktemp("site") / "a", train=4, test=3)
    trainer = trainer_at(path)
    trainer.train(request_for(*STUDY, evaluate=True), initial_weights(*STUDY))
    approvals, now = Approvals(trainer.site.state_path), datetime.now(UTC)
    approvals.propose(DIGEST, "smoke", STUDY, now)
    approvals.propose(study_digest(study_from(*OTHER)), "another", OTHER, now)
    return path


def test_the_page_tells_what_the_ledger_and_the_approvals_say(site: Path) -> None:
    told = TestClient(SitePages(site).app()).get("/api/site").json()
    studies = {study["digest"]: study for study in told["studies"]}
    assert set(studies) == {DIGEST, study_digest(study_from(*OTHER))}
    assert studies[DIGEST]["told"]["updates"] == 1
    (kept,) = ledgers_in(load_site(site).ledgers_path)
    (ledger,) = told["ledgers"]
    chain = kept.chain()
    delta = default_delta(chain)
    assert (ledger["patients"], ledger["delta"]) == (len(chain.patients), delta)
    assert ledger["charges"] == len(chain.charges)
    assert ledger["curve"][-1] == [len(chain.charges), ledger["epsilon"]]
    assert ledger["epsilon"] >= kept.epsilon(delta, DIGEST)
    assert told["person"] == person()
    assert set(told["curves"]) == {DIGEST}


def test_an_answer_is_written_down_under_a_name_after_a_confirmation(
    site: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SUDO_USER", "anna")
    client, approvals = TestClient(SitePages(site).app()), Approvals(load_site(site).state_path)
    path = f"/api/studies/{DIGEST}/reject"
    for wrong in ({}, {"confirmed": "ab"}, [], {"confirmed": DIGEST[:16]}):
        assert client.post(path, json=wrong).status_code == 409
    assert client.post(path, content=b"[" * 4000).status_code == 409
    assert client.post(path, content=b" " * 5000).status_code == 404
    assert approvals.status(DIGEST) == "proposed"
    assert client.post(path, json={"confirmed": DIGEST}).json()["status"] == "rejected"
    assert approvals.status(DIGEST) == "rejected"
    told = client.get("/api/site").json()["studies"]
    assert [s["decided_by"] for s in told if s["digest"] == DIGEST] == ["anna"]
    assert client.post(f"/api/studies/{DIGEST}/drop", json={}).status_code == 404


def test_a_policy_that_was_changed_is_told_of_at_once(tmp_path: Path) -> None:
    path = pictures_site(tmp_path / "a", train=4, test=3)
    (path.parent / "policy.yaml").write_text(f"studies:\n  approved: [{DIGEST}]\n")
    path.write_text(f"{path.read_text()}\npolicy: policy.yaml\n")
    approvals = Approvals(load_site(path).state_path)
    approvals.propose(DIGEST, "smoke", STUDY, datetime.now(UTC))
    client = TestClient(SitePages(path).app())
    assert [s["status"] for s in client.get("/api/site").json()["studies"]] == ["approved"]
    (path.parent / "policy.yaml").write_text("studies:\n  approved: []\n")
    assert [s["status"] for s in client.get("/api/site").json()["studies"]] == ["proposed"]


def test_epsilon_for_life_is_at_the_least_delta_of_the_approved_studies(site: Path) -> None:
    pages, approvals = SitePages(site), Approvals(load_site(site).state_path)
    client, strict = TestClient(pages.app()), (*STUDY, "privacy.delta=1e-6")
    (before,) = client.get("/api/site").json()["ledgers"]
    digest = study_digest(study_from(*strict))
    approvals.propose(digest, "strict", strict, datetime.now(UTC))
    approvals.answer(digest, "approved", "anna", datetime.now(UTC))
    (after,) = client.get("/api/site").json()["ledgers"]
    assert (before["delta"], after["delta"]) == (1 / 14, 1e-6)
    assert after["epsilon"] > before["epsilon"]
    approvals.answer(digest, "rejected", "anna", datetime.now(UTC))


def test_of_many_rounds_the_curves_are_thinned() -> None:
    lines = [{"round": n, "estimates": {"dice": {"value": n / 1e4}}} for n in range(1, 1001)]
    points = _curves({DIGEST: lines})[DIGEST]["dice"]
    assert len(points) <= 200
    assert (points[0], points[-1]) == ((1, 1e-4), (1000, 0.1))


def test_the_logs_are_told_line_by_line(site: Path) -> None:
    log = daemon_log("page-test", load_site(site).state_path / "logs" / "site.jsonl")
    log.info("connected")
    log.warning("away")
    found = load_site(site)
    (line,) = log_entries(found, True, "away", 10)
    assert line.endswith("WARNING page-test: away")
    with (site.parent / LOG).open("a") as file:
        file.write("2026-11-28 17:42:29,135 INFO one\n2026-11-28 17:42:30,001 ERROR two\n")
        file.write("Traceback:\n  File\nValueError\n")
    one, two = log_entries(found, False, "", 2)
    assert one.endswith("INFO one")
    # An error is read from its first line to its last, and found by each of them.
    assert two.endswith("ERROR two\nTraceback:\n  File\nValueError")
    client = TestClient(SitePages(site).app())
    assert client.get("/api/log?of=studies&text=VALUEERROR").json() == [two]


@contextmanager
def page_of(site: Path) -> Iterator[str]:
    with served(guarded(SitePages(site).app(), TOKEN)) as address:
        yield f"{address}/?{PARAMETER}={TOKEN}"


@IN_A_BROWSER
def test_a_data_officer_rejects_a_study_and_approves_it(site: Path) -> None:
    approvals = Approvals(load_site(site).state_path)
    other = study_digest(study_from(*OTHER))
    with page_of(site) as url, chromium() as browser:
        page, wrong = opened(browser, url)
        card = page.locator("article", has_text=other)
        card.get_by_role("button", name="Reject").click()
        assert grave_findings(page) == []
        page.keyboard.press("Escape")
        assert approvals.status(other) == "proposed"
        card.get_by_role("button", name="Reject").click()
        page.get_by_role("dialog").get_by_role("button", name="Reject").click()
        page.locator("article.rejected", has_text=other).wait_for()
        # The next look, with another study's words, leaves the focus where it is.
        approve = card.get_by_role("button", name="Approve")
        approve.focus()
        cards = page.locator("#studies article").count()
        approvals.propose("cd" * 32, "third", OTHER, datetime.now(UTC) + timedelta(hours=1))
        page.evaluate("() => showSite()")
        assert page.locator("#studies article").count() == cards + 1
        assert approve.evaluate("(button) => button === document.activeElement")
        assert approvals.status(other) == "rejected"
        card.get_by_role("button", name="Approve").click()
        page.get_by_role("dialog").get_by_role("button", name="Approve").click()
        page.locator("article.approved", has_text=other).wait_for()
        assert approvals.status(other) == "approved"
        page.locator("#ledgers tbody tr").wait_for()
        assert grave_findings(page) == []
        assert wrong == []
