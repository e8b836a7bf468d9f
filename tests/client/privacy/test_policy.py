import ast
import json
import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from flwr.app import ConfigRecord
from hypothesis import given
from hypothesis import strategies as st

from client.privacy.policy import (
    CohortPolicy,
    LeavePolicy,
    Policy,
    PrivacyPolicy,
    Spending,
    StudyPolicy,
    check_spending,
    check_study,
    load_policy,
    open_policy,
)
from client.privacy.speech import speakable
from common.config import load_study, study_digest
from common.contract import RefusalError, Request
from common.messages import MessageError, pack_request, unpack_request
from common.schema import SettingsError
from common.study import Study
from tests.builders import PICTURES, PRIVATE, request_for, study_from

ROOT = Path(__file__).parents[3]
PLAIN, PRIVATE_STUDY = study_from(*PICTURES), study_from(*PICTURES, *PRIVATE)
DIGEST = study_digest(PRIVATE_STUDY)
APPROVED = Policy(studies=StudyPolicy(approved=[DIGEST]))
SPENDING = Spending(noise_multiplier=1.0, delta=1 / 80, epsilon_study=3.0, epsilon_life=9.0)


def written(folder: Path, text: str) -> Path:
    path = folder / "policy.yaml"
    path.write_text(text)
    return path


def leaves(policy: Any, prefix: str = "") -> Iterator[tuple[str, object]]:
    """Every field of a policy, as its dotted name, with its value."""
    for field in fields(policy):
        value, name = getattr(policy, field.name), prefix + field.name
        if is_dataclass(value):
            yield from leaves(value, name + ".")
        else:
            yield name, value


FIELDS = dict(leaves(Policy()))


def test_a_site_without_a_file_is_strict() -> None:
    policy = Policy()
    assert policy.privacy.required
    assert policy.studies.approved == []
    assert policy.may_leave.metrics_noise_multiplier > 0
    assert policy.may_leave.train_loss_decimals is None
    assert policy.may_leave.decimals_of("hd95_mm") is None


@pytest.mark.parametrize("policy", [Policy(), open_policy(), APPROVED])
def test_a_policy_that_is_written_is_read_again(policy: Policy, tmp_path: Path) -> None:
    assert load_policy(written(tmp_path, yaml.safe_dump(asdict(policy)))) == policy


def test_what_a_file_does_not_name_stays_strict(tmp_path: Path) -> None:
    policy = load_policy(
        written(tmp_path, "privacy: {max_epsilon_study: 3}\nstudies: {tasks: [x]}")
    )
    assert policy == Policy(
        privacy=PrivacyPolicy(max_epsilon_study=3.0), studies=StudyPolicy(tasks=["x"])
    )


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("privacy: {max_epsilon: 3}", "max_epsilon"),
        ("secret: 1", "secret"),
        ("privacy: {required: perhaps}", "required"),
        ("privacy: {max_epsilon_life: many}", "max_epsilon_life"),
        ("privacy: {max_epsilon_life: .nan}", "max_epsilon_life=nan"),
        ("privacy: {max_epsilon_study: 0}", "max_epsilon_study=0"),
        ("privacy: {least_noise_multiplier: -1}", "least_noise_multiplier=-1"),
        ("privacy: {max_delta: 2}", "max_delta=2"),
        ("cohort: {least_patients_told: 0}", "least_patients_told=0"),
        ("cohort: {least_patients_train: 2.5}", "least_patients_train"),
        ("studies: {approved: [abc]}", "'abc'"),
        ("studies: {tasks: segmentation}", "tasks"),
        ("may_leave: {metrics: {dice: 99}}", "dice=99"),
        ("may_leave: {metrics: [dice]}", "may_leave"),
        ("may_leave: {train_loss_decimals: -1}", "train_loss_decimals=-1"),
        ("may_leave: {metrics_noise_multiplier: -2}", "metrics_noise_multiplier=-2"),
        ("may_leave:", "may_leave"),
        ("privacy: {max_epsilon_study: yes}", "max_epsilon_study"),
        ("- a list", "holds no policy"),
        ("", "holds no policy"),
        ("privacy: [", "cannot be read"),
    ],
)
def test_a_policy_that_cannot_be_is_refused_by_name(text: str, told: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=told.replace("[", r"\[")):
        load_policy(written(tmp_path, text))


@pytest.mark.parametrize(
    ("text", "metrics"),
    [
        ("may_leave: {metrics: {hd95_mm: 1}}", {"hd95_mm": 1}),
        ("may_leave: {metrics: {}}", {}),
        ("may_leave: {weights: true}", Policy().may_leave.metrics),
        ("privacy: {required: true}", Policy().may_leave.metrics),
    ],
)
def test_where_a_file_names_metrics_no_other_leaves(
    text: str, metrics: dict[str, int], tmp_path: Path
) -> None:
    assert load_policy(written(tmp_path, text)).may_leave.metrics == metrics


def test_a_policy_file_that_is_not_there_is_no_default(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="cannot be read"):
        load_policy(tmp_path / "policy.yaml")


def told_by(check: Callable[[], None]) -> str | None:
    """The text of a check's refusal, or None where it passes."""
    found = None
    try:
        check()
    except RefusalError as error:
        found = error
    assert found is None or (found.code == "policy" and speakable(found.text)), found
    return found.text if found else None


def refused(policy: Policy, study: Study, patients: int = 40) -> str | None:
    return told_by(lambda: check_study(policy, study, patients))


def test_a_study_that_keeps_to_the_policy_passes() -> None:
    assert refused(APPROVED, PRIVATE_STUDY) is None
    assert refused(open_policy(), PLAIN, 1) is None


@pytest.mark.parametrize(
    ("studies", "told"),
    [
        (StudyPolicy(approved=None, tasks=["segmentation"]), "allowed: task.name=segmentation"),
        (
            StudyPolicy(approved=None, models=["unet", "resnet18"]),
            "model.name=resnet18 or model.name=unet",
        ),
        (StudyPolicy(approved=None, models=[]), "allowed: none"),
    ],
)
def test_a_study_outside_the_policy_is_refused_with_what_would_pass(
    studies: StudyPolicy, told: str
) -> None:
    assert told in str(refused(Policy(studies=studies), PRIVATE_STUDY))


def test_without_privacy_is_refused_where_it_is_required() -> None:
    free = replace(APPROVED, studies=StudyPolicy(approved=None))
    assert "privacy.mechanism=dp_sgd" in str(refused(free, PLAIN))
    assert refused(replace(free, privacy=PrivacyPolicy(required=False)), PLAIN) is None


@pytest.mark.parametrize(("patients", "passes"), [(20, True), (19, False), (1, False), (0, True)])
def test_few_training_patients_are_refused_and_not_counted_aloud(
    patients: int, passes: bool
) -> None:
    text = refused(APPROVED, PRIVATE_STUDY, patients)
    assert (text is None) == passes
    assert text is None or ("20" in text and str(patients) not in text.split())


def test_a_site_from_which_no_update_leaves_tests_and_does_not_train() -> None:
    tester = replace(APPROVED, may_leave=LeavePolicy(weights=False))
    assert refused(tester, PRIVATE_STUDY, 0) is None
    assert "no update leaves" in str(refused(tester, PRIVATE_STUDY))


def unaffordable(policy: Policy, spending: Spending, patients: int = 40) -> str | None:
    return told_by(lambda: check_spending(policy, patients, spending))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"noise_multiplier": 0.4}, "privacy.noise_multiplier=0.5"),
        ({"noise_multiplier": math.nan}, "privacy.noise_multiplier=0.5"),
        ({"delta": 1 / 79}, "privacy.delta=0.012 or less"),
        ({"delta": math.nan}, "privacy.delta=0.012 or less"),
        ({"epsilon_study": 8.001}, "policy.privacy.max_epsilon_study to 8.01"),
        ({"epsilon_life": 16.5}, "policy.privacy.max_epsilon_life to 16.50"),
        ({"epsilon_life": math.inf}, "to no finite value"),
        ({"epsilon_study": math.nan}, "to no finite value"),
    ],
)
def test_too_dear_a_study_is_refused_with_what_would_pass(
    change: dict[str, float], told: str
) -> None:
    assert unaffordable(APPROVED, SPENDING) is None
    assert told in str(unaffordable(APPROVED, replace(SPENDING, **change)))


@given(
    patients=st.integers(1, 10**6),
    max_delta=st.one_of(st.none(), st.floats(1e-9, 1)),
    delta=st.floats(1e-12, 1),
)
def test_a_delta_passes_if_it_is_at_most_one_over_the_patients_and_the_sites_own(
    patients: int, max_delta: float | None, delta: float
) -> None:
    policy = Policy(privacy=PrivacyPolicy(max_delta=max_delta))
    largest = min(1 / patients, max_delta if max_delta is not None else 1 / (2 * patients))
    text = unaffordable(policy, replace(SPENDING, delta=delta), patients)
    assert (text is None) == (delta <= largest)
    if text is not None:
        told = float(text.split("set privacy.delta=")[1].split(" ")[0])
        assert told <= largest
        assert unaffordable(policy, replace(SPENDING, delta=told), patients) is None


@given(epsilon=st.floats(0, 1e4), cap=st.floats(0.01, 1e3))
def test_the_cap_that_a_refusal_names_passes(epsilon: float, cap: float) -> None:
    spending = replace(SPENDING, epsilon_study=epsilon)
    text = unaffordable(Policy(privacy=PrivacyPolicy(max_epsilon_study=cap)), spending)
    assert (text is None) == (epsilon <= cap)
    if text is not None:
        raised = float(text.rsplit(" ", 1)[1])
        assert (
            unaffordable(Policy(privacy=PrivacyPolicy(max_epsilon_study=raised)), spending) is None
        )


def test_a_metrics_own_name_comes_before_a_pattern() -> None:
    leave = LeavePolicy(metrics={"dice*": 1, "dice": 3})
    assert (leave.decimals_of("dice"), leave.decimals_of("dice_a")) == (3, 1)
    assert leave.decimals_of("hd95_mm") is None


# What a server sends: overrides, the fields of a body, other records.


@pytest.mark.parametrize("name", FIELDS)
@pytest.mark.parametrize("sign", ["", "+", "++"])
@pytest.mark.parametrize("prefix", ["policy.", ""])
def test_no_override_reaches_the_policy(name: str, sign: str, prefix: str) -> None:
    relaxed = dict(leaves(open_policy()))[name]
    value = "{}" if isinstance(relaxed, dict) else json.dumps(relaxed).replace("Infinity", "inf")
    try:
        study = load_study((*PICTURES, f"{sign}{prefix}{name}={value}"))
    except SettingsError:
        return
    # Hydra takes keys that it does not know under a plus; the study is the same without them.
    assert study == PLAIN
    assert refused(Policy(), study) == refused(Policy(), PLAIN)


@pytest.mark.parametrize("name", ["policy", *FIELDS, *(n.split(".")[-1] for n in FIELDS)])
def test_no_field_of_a_message_reaches_the_policy(name: str) -> None:
    records = pack_request(request_for(*PICTURES))
    raw = json.loads(str(records.config_records["body"]["json"]))
    for place in (raw, raw["study"]):
        place[name] = 1
        records["body"] = ConfigRecord({"kind": "Request", "json": json.dumps(raw)})
        try:
            request = unpack_request(records)
        except MessageError:
            request = request_for(*PICTURES)
        assert request == request_for(*PICTURES)
        del place[name]


def test_no_other_record_of_a_message_reaches_the_policy() -> None:
    records = pack_request(request_for(*PICTURES))
    records["policy"] = ConfigRecord(dict.fromkeys(FIELDS, 1))
    assert unpack_request(records) == request_for(*PICTURES)


def test_what_a_server_sends_has_no_field_of_a_policy() -> None:
    names = {name.split(".")[-1] for name in FIELDS} | {f.name for f in fields(Policy)}
    assert not names & ({f.name for f in fields(Request)} | {"overrides", "digest"})


def test_a_site_reads_no_run_configuration_and_of_the_nodes_only_where_it_lies() -> None:
    read: set[str] = set()
    for file in sorted((ROOT / "client").rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Attribute) and node.attr in ("run_config", "node_config"):
                read.add(f"{file.name} {node.attr}")
    assert read == {"app.py node_config"}


@pytest.mark.parametrize("part", [PrivacyPolicy, CohortPolicy, StudyPolicy, LeavePolicy])
def test_a_policy_cannot_be_changed_once_it_is_read(part: type[Any]) -> None:
    for field in fields(part):
        with pytest.raises(AttributeError):
            setattr(part(), field.name, None)
