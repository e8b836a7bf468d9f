import stat
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from client.approval import (
    APPROVED,
    MOST_UNANSWERED,
    PROPOSED,
    REJECTED,
    ApprovalError,
    Approvals,
    check_approved,
)
from client.privacy.policy import Policy, StudyPolicy
from client.privacy.speech import speakable
from common.contract import RefusalError

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
ONE, TWO = "ab" * 32, "ab" * 8 + "cd" * 24
STRICT = Policy(studies=StudyPolicy(approved=[]))
LISTED = Policy(studies=StudyPolicy(approved=[ONE]))
OPEN = Policy(studies=StudyPolicy(approved=None))


@pytest.fixture
def approvals(tmp_path: Path) -> Approvals:
    return Approvals(tmp_path / "state")


def asked(approvals: Approvals, policy: Policy, digest: str = ONE) -> str | None:
    """Return the refusal's text, or None where the study may run."""
    try:
        check_approved(policy, approvals, digest, "smoke", ["rounds=2"], NOW)
    except RefusalError as error:
        return f"{error.code}: {error.text}"
    return None


def test_an_unapproved_study_is_refused_by_both_digests_alone_and_written_down(
    approvals: Approvals,
) -> None:
    text = asked(approvals, STRICT)
    assert text == (
        f"policy: the server runs study {ONE}, this site composes study {ONE}; "
        "it is not approved here"
    )
    assert speakable(text)
    (proposal,) = approvals.all()
    assert (proposal.digest, proposal.status, proposal.name) == (ONE, PROPOSED, "smoke")
    assert proposal.overrides == ("rounds=2",)
    assert proposal.first_seen == proposal.last_asked == NOW.isoformat(timespec="seconds")


@pytest.mark.parametrize("policy", [STRICT, LISTED, OPEN])
def test_a_rejection_wins_over_every_policy_until_it_is_approved(
    approvals: Approvals, policy: Policy
) -> None:
    approvals.answer(ONE, REJECTED, "anna", NOW)
    assert asked(approvals, policy) is not None
    approvals.answer(ONE, APPROVED, "anna", NOW)
    assert asked(approvals, policy) is None


@pytest.mark.parametrize("policy", [LISTED, OPEN])
def test_what_the_policy_approves_runs_and_writes_nothing(
    approvals: Approvals, policy: Policy
) -> None:
    assert asked(approvals, policy) is None
    assert not approvals.state.exists()


def test_an_answer_has_who_and_when_and_outlives_the_process(approvals: Approvals) -> None:
    asked(approvals, STRICT)
    approvals.answer(ONE[:16].upper(), APPROVED, "anna", NOW)
    (known,) = Approvals(approvals.state).all()
    assert (known.status, known.decided_by, known.name) == (APPROVED, "anna", "smoke")
    assert known.decided == NOW.isoformat(timespec="seconds")
    assert stat.S_IMODE(approvals.path.stat().st_mode) == 0o600


def test_all_digits_answer_a_study_beforehand_and_it_then_runs(approvals: Approvals) -> None:
    assert approvals.answer(ONE, APPROVED, "anna", NOW).first_seen is None
    assert asked(approvals, STRICT) is None
    (known,) = approvals.all()
    assert (known.status, known.name, known.decided_by) == (APPROVED, "smoke", "anna")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("abababa", "is no study's digest"),
        ("abababax", "is no study's digest"),
        ("../../etc", "is no study's digest"),
        ("ab" * 33, "is no study's digest"),
        ("0" * 16, "was proposed here"),
        ("ab" * 8, "give more digits"),
    ],
)
def test_digits_of_no_study_or_of_two_answer_nothing(
    approvals: Approvals, words: str, told: str
) -> None:
    for digest in (ONE, TWO):
        asked(approvals, STRICT, digest)
    with pytest.raises(ApprovalError, match=told):
        approvals.answer(words, APPROVED, "anna", NOW)
    assert {row.status for row in approvals.all()} == {PROPOSED}


def test_a_server_cannot_fill_the_disk_nor_push_out_an_answer(approvals: Approvals) -> None:
    approvals.answer(TWO, REJECTED, "anna", NOW)
    digests = [f"{number:064x}" for number in range(MOST_UNANSWERED + 5)]
    for second, digest in enumerate(digests):
        approvals.propose(digest, "x", [], NOW + timedelta(seconds=second))
    kept = {row.digest for row in approvals.all()}
    assert kept == {TWO, *digests[5:]}


def test_the_last_time_is_kept_to_the_minute(approvals: Approvals) -> None:
    for seconds, last in ((0, 0), (59, 0), (61, 61)):
        approvals.propose(ONE, "x", [], NOW + timedelta(seconds=seconds))
        (known,) = approvals.all()
        assert known.last_asked == (NOW + timedelta(seconds=last)).isoformat(timespec="seconds")
        assert known.first_seen == NOW.isoformat(timespec="seconds")


def test_an_approval_is_never_lost_to_a_proposal_of_the_same_moment(approvals: Approvals) -> None:
    with ThreadPoolExecutor(8) as threads:
        for number in range(15):
            digest = f"{number:064x}"
            list(
                threads.map(
                    lambda do: do(),
                    [lambda d=digest: approvals.propose(d, "x", [], NOW) for _ in range(3)]
                    + [lambda d=digest: approvals.answer(d, APPROVED, "anna", NOW)],
                )
            )
            assert approvals.status(digest) == APPROVED


def test_a_broken_file_approves_nothing_and_says_so(approvals: Approvals) -> None:
    approvals.path.parent.mkdir(parents=True)
    approvals.path.write_bytes(b"no database" * 100)
    for policy in (STRICT, OPEN):
        with pytest.raises(ApprovalError, match="cannot be read or written"):
            asked(approvals, policy)
