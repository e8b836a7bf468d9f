import pytest

from client.approval import PROPOSED, Proposal
from client.privacy.policy import CohortPolicy, LeavePolicy, Policy
from client.study_words import study_words
from common.config import study_digest
from tests.builders import PICTURES, study_from

GROUPED = (*PICTURES, "evaluation=shift", "evaluation.subgroups={sex:[F,M],age:[50]}")


def words(policy: Policy, *overrides: str) -> dict[str, str]:
    proposal = Proposal(
        digest=study_digest(study_from(*overrides)),
        name="study",
        overrides=overrides,
        status=PROPOSED,
        first_seen="2026-01-01T00:00:00+00:00",
        last_asked=None,
        decided_by=None,
        decided=None,
    )
    return study_words(proposal, policy)


@pytest.mark.parametrize(
    ("leaves", "told"),
    [
        (
            LeavePolicy(),
            "metrics by sex (F, M), age (50) are asked for; this site's policy tells none",
        ),
        (
            LeavePolicy(subgroups=["age"]),
            "metrics by age (50) leave once, at the end, with noise 2, as one more charge; "
            "by sex (F, M) none",
        ),
        (
            LeavePolicy(subgroups=["*"], metrics_noise_multiplier=0.0),
            "metrics by sex (F, M), age (50) leave once, at the end, exactly",
        ),
    ],
)
def test_a_data_officer_reads_whose_metrics_leave(leaves: LeavePolicy, told: str) -> None:
    told_least = CohortPolicy(least_patients_told=1)
    assert words(Policy(may_leave=leaves, cohort=told_least), *GROUPED)["subgroups"] == told


def test_a_study_that_asks_for_metrics_twice_a_round_says_so() -> None:
    assert "twice a round" in words(Policy(), *PICTURES, "strategy=feddg_ga")["metrics"]
    assert "twice" not in words(Policy(), *PICTURES)["metrics"]


def test_a_study_that_takes_patients_without_labels_says_so() -> None:
    assert "without labels" in words(Policy(), *PICTURES, "method=fixmatch")["task"]
    assert words(Policy(), *PICTURES)["task"] == "classification"


def test_an_ensemble_says_whose_networks_it_tests_and_that_nothing_is_trained() -> None:
    told = words(Policy(), *PICTURES, "model.members=3")["model"]
    assert told == (
        "3 networks cnn that single sites have trained, tested together; nothing is trained"
    )
    assert words(Policy(), *PICTURES)["model"] == "cnn"


def test_a_study_that_begins_with_trained_weights_says_with_which() -> None:
    told = words(Policy(), *PICTURES, f"begins_with='{'ab' * 32}'")["model"]
    assert told == "cnn, which begins with the weights abababababab of an earlier study"
    both = words(Policy(), *PICTURES, f"begins_with='{'ab' * 32}'", "model.members=3")["model"]
    assert both.startswith("3 networks cnn that single sites have trained, weights abababababab,")


def test_a_study_without_subgroups_says_so() -> None:
    assert words(Policy(), *PICTURES)["subgroups"] == "none is asked for"
