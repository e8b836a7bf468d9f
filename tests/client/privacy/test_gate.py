import ast
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, fields, is_dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from client.privacy.gate import CODES, Limits, leave, leave_refusal
from client.privacy.policy import (
    LeavePolicy,
    Policy,
    PrivacyPolicy,
    open_policy,
)
from client.privacy.speech import speakable
from common.compression import CODED, coded
from common.compression_config import CodecConfig
from common.contract import (
    NO_BASE,
    Answer,
    Description,
    Estimate,
    EvaluateReply,
    PrivacySpent,
    Profile,
    Refusal,
    RefusalError,
    Released,
    Reliability,
    TrainReply,
)
from common.profile import noise_std

ROOT = Path(__file__).parents[3]
METRICS = {"dice": (0.0, 1.0), "hd95_mm": (0.0, 1000.0), "auroc": (0.0, 1.0)}
LIMITS = Limits(
    site="st-a",
    round=3,
    patients_train=40,
    patients_held_out=12,
    arrays={"w": ((2, 3), np.dtype(np.float32)), "n": ((), np.dtype(np.int64))},
    metrics=METRICS,
)
EXACT = Policy(
    privacy=PrivacyPolicy(required=False),
    may_leave=LeavePolicy(
        metrics={"dice": 2, "hd95_mm": 1}, metrics_noise_multiplier=0.0, train_loss_decimals=3
    ),
)
DICE = Estimate(value=0.81234, low=0.7077, high=0.9, n=12)
SPENT = PrivacySpent(
    unit="patient",
    epsilon=1.23456789,
    epsilon_image=1.0,
    epsilon_life=2.3456789,
    delta=1 / 80,
    noise_multiplier=1.00000019,
    sample_rate=0.1,
    steps=9,
)
ABOUT = Description(
    site="st-a", patients_train=40, patients_held_out=12, images_train=90, bad_files=1
)
UPDATE = TrainReply(
    site="st-a",
    round=3,
    patients=40,
    steps=5,
    seconds=1.23,
    train_loss=0.65432,
    estimates={"dice": DICE, "auroc": Estimate(value=0.9, low=None, high=None, n=12)},
)
FOUND = EvaluateReply(site="st-a", round=3, seconds=0.04, estimates={"dice": DICE})


def weights() -> dict[str, np.ndarray]:
    return {"w": np.ones((2, 3), np.float32), "n": np.array(4, np.int64)}


def let(answer: Answer, policy: Policy = EXACT, limits: Limits = LIMITS) -> Any:
    beside = weights() if isinstance(answer, TrainReply) else None
    return leave(answer, beside, limits, policy).body


def test_an_update_leaves_with_what_the_policy_names_rounded() -> None:
    released = leave(UPDATE, weights(), LIMITS, EXACT)
    assert released.body == replace(
        UPDATE,
        seconds=1.2,
        train_loss=0.654,
        estimates={"dice": Estimate(value=0.81, low=0.71, high=0.9, n=12)},
    )
    assert released.weights is not None
    assert {n: a.tobytes() for n, a in released.weights.items()} == {
        n: a.tobytes() for n, a in weights().items()
    }


def test_a_description_and_an_evaluation_leave() -> None:
    assert let(ABOUT, open_policy()) == ABOUT
    assert let(FOUND).estimates == {"dice": Estimate(value=0.81, low=0.71, high=0.9, n=12)}


GAIN = Estimate(value=-0.30049, low=-0.5, high=0.1, n=12)
COMPARED = replace(FOUND, others={"local": {"dice": DICE}}, gains={"local": {"dice": GAIN}})


TELLING = replace(EXACT, may_leave=replace(EXACT.may_leave, own_models=True))


def test_own_models_leave_as_metrics_and_differences_alone() -> None:
    told = let(COMPARED, TELLING)
    assert told.others == {"local": let(FOUND).estimates}
    assert told.gains == {"local": {"dice": Estimate(value=-0.3, low=-0.5, high=0.1, n=12)}}
    few = replace(LIMITS, patients_held_out=1)
    alone = replace(COMPARED, estimates={}, others={"local": {}}, gains={"local": {}})
    strict = replace(TELLING, cohort=Policy().cohort)
    assert let(alone, strict, few).gains == {"local": {}}


def test_nothing_of_own_models_leaves_where_the_policy_does_not_say_so() -> None:
    with pytest.raises(RefusalError, match="models that are not private"):
        let(COMPARED)


@pytest.mark.parametrize(
    "changes",
    [
        {"others": {"st-b": {"dice": DICE}}},
        {"others": {3: {"dice": DICE}}},
        {"gains": [("local", {})]},
        {"gains": {"local": {"dice": replace(GAIN, value=-1.5)}}},
        {"gains": {"local": {"secret": GAIN}}},
        {"gains": {"local": {"dice": replace(GAIN, n=3)}}},
    ],
)
def test_a_comparison_that_should_not_be_there_refuses_the_answer(changes: dict[str, Any]) -> None:
    with pytest.raises(RefusalError, match="the site held back"):
        let(forced(COMPARED, **changes), TELLING)


def test_what_an_open_policy_lets_leave_is_what_came() -> None:
    assert let(UPDATE, open_policy()) == replace(UPDATE, seconds=1.2)


def test_the_strict_policy_lets_only_private_updates_and_noised_metrics_leave() -> None:
    private = replace(UPDATE, privacy=SPENT)
    strict = Policy()
    with pytest.raises(RefusalError, match="without differential privacy"):
        let(UPDATE, strict)
    with pytest.raises(RefusalError, match="less noise than its policy"):
        let(private, strict)
    noised = replace(LIMITS, metrics_noise_multiplier=4.0)
    with pytest.raises(RefusalError, match="an interval beside a noised metric"):
        let(private, strict, noised)
    alone = {"dice": replace(DICE, low=None, high=None)}
    told = let(replace(private, estimates=alone), strict, noised)
    assert told.estimates["dice"] == Estimate(value=0.81, low=None, high=None, n=12)
    assert told.train_loss is None


def test_an_account_is_rounded_to_the_side_that_promises_less() -> None:
    told = let(replace(UPDATE, privacy=SPENT)).privacy
    assert (told.epsilon, told.noise_multiplier) == (1.23457, 1.0)
    assert (told.delta, told.sample_rate, told.steps) == (0.0125, 0.1, 9)


@pytest.mark.parametrize(("held_out", "told"), [(9, False), (10, True)])
def test_estimates_over_few_patients_stay(held_out: int, told: bool) -> None:
    estimates = {"dice": replace(DICE, n=held_out)}
    limits = replace(LIMITS, patients_held_out=held_out)
    assert bool(let(replace(FOUND, estimates=estimates), limits=limits).estimates) == told


@pytest.mark.parametrize(
    ("train", "held_out", "told"),
    [(20, 10, True), (19, 10, False), (20, 9, True), (20, 0, True), (0, 10, True), (1, 0, False)],
)
def test_counts_of_few_patients_are_not_told_but_none_may_be(
    train: int, held_out: int, told: bool
) -> None:
    about = replace(ABOUT, patients_train=train, patients_held_out=held_out, bad_files=0)
    limits = replace(LIMITS, patients_train=train, patients_held_out=held_out)
    if told:
        # Fewer held-out patients than numbers may be told of are as good as none.
        expected = replace(about, patients_held_out=held_out if held_out >= 10 else 0)
        assert let(about, limits=limits) == expected
    else:
        with pytest.raises(RefusalError, match="fewer patients") as refused:
            let(about, limits=limits)
        assert str(train) not in refused.value.text


@pytest.mark.parametrize(("bad", "told"), [(0, 0), (1, 10), (10, 10), (17, 17)])
def test_a_few_bad_files_are_told_as_the_least_that_may_be_told(bad: int, told: int) -> None:
    assert let(replace(ABOUT, bad_files=bad)).bad_files == told


def test_an_update_of_few_patients_stays() -> None:
    with pytest.raises(RefusalError, match="fewer patients"):
        let(replace(UPDATE, patients=19), limits=replace(LIMITS, patients_train=19))


def forced(answer: Any, **values: object) -> Any:
    """Return a copy with fields that its own checks would not take."""
    copy = object.__new__(type(answer))
    for name, value in {**vars(answer), **values}.items():
        object.__setattr__(copy, name, value)
    return copy


class Liar(float):
    def __round__(self, _: int = 0) -> str:  # type: ignore[override]
        return "p17"


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (forced(UPDATE, site="Erika"), "value that is not its own"),
        (forced(UPDATE, patients=41), "value that is not its own"),
        (forced(UPDATE, patients=40.0), "value that is not its own"),
        (forced(UPDATE, round=4), "value that is not its own"),
        (forced(UPDATE, steps=True), "count"),
        (forced(UPDATE, steps=-1), "count"),
        (forced(UPDATE, seconds=float("nan")), "not a finite number"),
        (forced(UPDATE, seconds="soon"), "not a finite number"),
        (forced(UPDATE, train_loss=Liar(1.0)), "not a finite number"),
        (forced(UPDATE, train_loss=1e9), "beyond its range"),
        (forced(UPDATE, estimates={"p17": DICE}), "does not have"),
        (forced(UPDATE, estimates={17: DICE}), "no text"),
        (forced(UPDATE, estimates={"dice": 0.5}), "no estimate"),
        (forced(FOUND, estimates={"dice": replace(DICE, value=1.2)}), "beyond its range"),
        (forced(FOUND, estimates={"dice": forced(DICE, value=float("inf"))}), "not a finite"),
        (forced(FOUND, estimates={"dice": replace(DICE, n=13)}), "value that is not its own"),
        (forced(UPDATE, privacy=forced(SPENT, unit="p17")), "value that is not its own"),
        (forced(UPDATE, privacy=forced(SPENT, epsilon=float("inf"))), "not a finite"),
        (forced(UPDATE, privacy={"epsilon": 1.0}), "account"),
        (forced(ABOUT, images_train="90"), "count"),
        (forced(ABOUT, patients_train=39), "value that is not its own"),
        (Refusal(site="st-a", code="data", text="p17"), "unknown kind"),
        ({"site": "st-a"}, "unknown kind"),
    ],
)
def test_a_value_that_should_not_be_there_refuses_the_answer(answer: Any, text: str) -> None:
    with pytest.raises(RefusalError, match=text) as refused:
        let(answer)
    assert refused.value.code == "gate"
    assert speakable(refused.value.text)


@pytest.mark.parametrize(
    "change",
    [
        lambda w: {**w, "extra": np.zeros(1)},
        lambda w: {"w": w["w"]},
        lambda w: {**w, "w": w["w"].astype(np.float64)},
        lambda w: {**w, "w": w["w"].T},
        lambda w: {**w, "w": w["w"] * np.float32(np.nan)},
        lambda w: {**w, "w": np.ma.masked_array(w["w"])},
        lambda w: {**w, "w": w["w"].tolist()},
        lambda w: list(w.items()),
        lambda _: None,
    ],
)
def test_arrays_that_are_not_the_models_refuse_the_answer(change: Callable[[Any], Any]) -> None:
    with pytest.raises(RefusalError, match="weights") as refused:
        leave(UPDATE, change(weights()), LIMITS, EXACT)
    assert speakable(refused.value.text)


def test_arrays_leave_beside_updates_alone_and_only_where_the_policy_lets_them() -> None:
    for answer in (ABOUT, FOUND):
        with pytest.raises(RefusalError, match="weights beside"):
            leave(answer, weights(), LIMITS, EXACT)
    tester = replace(EXACT, may_leave=replace(EXACT.may_leave, weights=False))
    with pytest.raises(RefusalError, match="does not let leave"):
        let(UPDATE, tester)
    assert let(FOUND, tester).estimates


JUNK = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.floats().map(np.float64),
    st.text(max_size=8),
    st.lists(st.integers(), max_size=2),
    st.dictionaries(st.text(max_size=3), st.floats(), max_size=2),
    st.builds(lambda: np.zeros((2, 3), np.float32)),
)


# Everything that an answer may hold is asked for, so that all of it can be replaced by junk.
ASKED = replace(
    LIMITS, subgroups=frozenset({"sex=F"}), profile={"a": 2}, profile_noise_multiplier=1.0
)
ROUGH = Reliability(confidence=0.8, accuracy=0.7, patients=10)
EVERYTHING = replace(
    TELLING,
    may_leave=replace(
        TELLING.may_leave,
        metrics={**TELLING.may_leave.metrics, "ece": 3},
        profile_noise_multiplier=1.0,
    ),
)


def injected(answer: Any) -> st.SearchStrategy[Any]:
    """An answer with any of its fields, and of its estimates and their fields, replaced."""
    estimate = st.builds(
        lambda junk: forced(DICE, **junk),
        st.dictionaries(st.sampled_from([f.name for f in fields(Estimate)]), JUNK, max_size=2),
    )
    names = st.one_of(st.sampled_from(list(METRICS)), st.text(max_size=4), st.integers())
    estimates = st.dictionaries(names, st.one_of(estimate, JUNK), max_size=3)
    spent = st.builds(
        lambda junk: forced(SPENT, **junk),
        st.dictionaries(st.sampled_from([f.name for f in fields(PrivacySpent)]), JUNK, max_size=2),
    )
    point = st.builds(
        lambda junk: forced(ROUGH, **junk),
        st.dictionaries(st.sampled_from([f.name for f in fields(Reliability)]), JUNK, max_size=1),
    )
    numbers = st.lists(st.one_of(st.floats(-1, 1), JUNK), min_size=2, max_size=2)
    profile = st.builds(
        lambda junk, parts: forced(ALL_OF_IT.profile, **{"parts": parts, **junk}),
        st.dictionaries(st.sampled_from([f.name for f in fields(Profile)]), JUNK, max_size=1),
        st.fixed_dictionaries({"a": st.one_of(numbers, JUNK)}),
    )
    models = st.sampled_from(["local", "personal", "st-b"])
    of_models = st.one_of(st.dictionaries(models, st.one_of(estimates, JUNK), max_size=2), JUNK)
    special = {
        "estimates": st.one_of(estimates, JUNK),
        "others": of_models,
        "gains": of_models,
        "subgroups": st.one_of(
            st.dictionaries(st.sampled_from(["sex=F", "p17"]), st.one_of(estimates, JUNK)), JUNK
        ),
        "reliability": st.one_of(st.lists(st.one_of(point, JUNK), max_size=2), JUNK),
        "profile": st.one_of(profile, JUNK),
        "privacy": st.one_of(spent, JUNK),
    }
    changes = [st.tuples(st.just(f.name), special.get(f.name, JUNK)) for f in fields(type(answer))]
    return st.lists(st.one_of(changes), max_size=2).map(lambda c: forced(answer, **dict(c)))


ARRAYS = st.one_of(
    st.just(weights()),
    st.none(),
    st.dictionaries(st.sampled_from(["w", "n", "x"]), JUNK, max_size=3),
    st.floats(width=32).map(lambda v: {**weights(), "w": np.full((2, 3), v, np.float32)}),
)


def assert_closed(released: Released) -> None:
    assert all(
        type(v) in (int, float, str, dict, list, type(None)) for v in vars_of(asdict(released.body))
    )
    strings = {v for v in vars_of(asdict(released.body)) if type(v) is str}
    assert strings <= {"st-a", "patient"}
    for name, estimate in getattr(released.body, "estimates", {}).items():
        decimals = EXACT.may_leave.metrics[name]
        low, high = METRICS[name]
        for value in (estimate.value, estimate.low, estimate.high):
            assert value is None or (low <= value <= high and round(value, decimals) == value)
    for name, array in (released.weights or {}).items():
        assert (array.shape, array.dtype) == LIMITS.arrays[name]
        assert np.isfinite(array).all()


def vars_of(value: object) -> list[object]:
    inside = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [value, *(x for v in inside for x in vars_of(v))]


@settings(max_examples=300)
@given(
    answer=st.sampled_from(
        [UPDATE, replace(UPDATE, privacy=SPENT), FOUND, COMPARED, ABOUT]
    ).flatmap(injected),
    arrays=ARRAYS,
)
def test_whatever_is_put_into_an_answer_only_closed_values_come_out(
    answer: Any, arrays: Any
) -> None:
    with suppress(RefusalError):
        assert_closed(leave(answer, arrays, ASKED, EVERYTHING))


def places(value: Any) -> Iterator[tuple[Any, ...]]:
    """Every place in an answer, as the keys that lead there."""
    yield ()
    parts = value if isinstance(value, dict) else {}
    if isinstance(value, list):
        parts = dict(enumerate(value))
    if is_dataclass(value):
        parts = {f.name: getattr(value, f.name) for f in fields(value)}
    for key, part in parts.items():
        yield from ((key, *rest) for rest in places(part))


def put(value: Any, place: tuple[Any, ...], junk: object) -> Any:
    """Return the answer with this at the place."""
    if not place:
        return junk
    key, *rest = place
    if isinstance(value, dict):
        return {**value, key: put(value[key], tuple(rest), junk)}
    if isinstance(value, list):
        return [*value[:key], put(value[key], tuple(rest), junk), *value[key + 1 :]]
    return forced(value, **{key: put(getattr(value, key), tuple(rest), junk)})


def junk_values() -> list[object]:
    plain: list[object] = [
        None,
        True,
        -1,
        10**12,
        0.1234567,
        float("nan"),
        float("inf"),
        "p17",
        (),
        [],
        {},
    ]
    of_numpy = [np.float64(0.5), np.int64(12), np.zeros((2, 3)), np.array([])]
    return [*plain, *of_numpy, [3], {"p17": 1.0}, {3: "p17"}, Liar(0.5), DICE, object()]


ALL_OF_IT = replace(
    COMPARED,
    reliability=[ROUGH],
    subgroups={"sex=F": {"dice": replace(DICE, n=10)}},
    profile=Profile(patients=52, noise_std=0.0, parts={"a": [0.5, 0.25]}),
    privacy=SPENT,
)
FILLED: dict[str, Answer] = {
    "update": replace(UPDATE, trained={"dice": DICE}, privacy=SPENT),
    "found": ALL_OF_IT,
    "about": ABOUT,
}


@pytest.mark.parametrize("kind", FILLED)
def test_junk_at_any_place_of_an_answer_is_refused_or_left_out(kind: str) -> None:
    answer = FILLED[kind]
    arrays = weights() if kind == "update" else None
    assert_closed(leave(answer, arrays, ASKED, EVERYTHING))
    for place in places(answer):
        for junk in junk_values():
            with suppress(RefusalError):
                assert_closed(leave(put(answer, place, junk), arrays, ASKED, EVERYTHING))


OUR_TEXTS = [
    "the server runs study abababababab, this site composes 0123456789ab from the same settings; "
    "install the same version of wardround",
    "training.amp=true would be slower here: this site trains on a CPU that has no arithmetic for "
    "it; set amp to false",
    "training.amp=true with privacy needs a GPU, this site trains on a CPU; set amp to false",
    "training.amp=true is computed wrongly on a CPU where a convolution strides over 2 voxels or "
    "fewer, as this network does; set amp to false, or give larger images or fewer levels",
    "3 files cannot be used; the site's own log names them, or data.on_bad_file=skip goes on "
    "without them",
    "the weights do not fit the study's model",
    "training diverged: 12 tensors are not finite; lower training.lr",
    "privacy.delta=0.5 is more than 1/patients=0.05 of this site; give a smaller delta, or null "
    "for 1/(2 x patients)",
    "privacy.target_epsilon=0.01 cannot be met with delta=1e-05 over 100 steps at sample rate "
    "0.100; raise it, or take fewer rounds",
    "the message holds nothing, expected Request",
    "the Request does not keep the contract: study.overrides.0: Input should be a valid string",
]


@pytest.mark.parametrize("text", OUR_TEXTS)
def test_our_own_texts_leave_as_they_are(text: str) -> None:
    released = leave_refusal("st-a", RefusalError("data", text))
    assert released == Released(body=Refusal(site="st-a", code="data", text=text))


@pytest.mark.parametrize(
    "secret",
    [
        "/data/st-a/scan",
        "scans/p17",
        r"C:\scans",
        "scan.nii.gz",
        "data.png",
        "scan.dcm:",
        "Erika",
        "Mustermann,",
        "p17",
        "PAT-0012",
        "1234567",
        "123456789012",
        "1970-01-01",
        "12.05.1970",
        "a@b.de",
        "site=/x",
        "ok\nnot",
        "",
    ],
)
def test_a_text_with_a_path_a_file_or_a_patient_stays(secret: str) -> None:
    text = f"this site cannot use {secret} today"
    body = leave_refusal("st-a", RefusalError("data", text)).body
    assert body == Refusal(site="st-a", code="data", text="refused; the site's own log says why")


def test_a_text_that_never_ends_stays() -> None:
    assert not speakable("a " * 1000 + "a")


class PatientErikaError(Exception):
    pass


class DisguisedError(Exception):
    pass


DisguisedError.__name__ = "ValueError"


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (ValueError("/data/p17.png"), "ValueError"),
        (FileNotFoundError(2, "no", "/data"), "FileNotFoundError"),
        (PatientErikaError("p17"), "Error"),
        (DisguisedError("p17"), "Error"),
        (KeyboardInterrupt(), "KeyboardInterrupt"),
        (RefusalError("p17", "the weights do not fit"), "Error"),
    ],
)
def test_of_any_other_error_only_pythons_own_class_leaves(error: BaseException, kind: str) -> None:
    text = f"{kind} at the site; its own log has the details"
    assert leave_refusal(None, error).body == Refusal(site="unknown", code="error", text=text)


@cache
def trees(*folders: str) -> dict[str, ast.Module]:
    files = [file for folder in folders for file in sorted((ROOT / folder).rglob("*.py"))]
    assert files
    return {str(file.relative_to(ROOT)): ast.parse(file.read_text()) for file in files}


@cache
def calls() -> set[tuple[str, str]]:
    """The files of client/ and common/ and the names that something is called by in each."""
    return {
        (file, getattr(node.func, "id", getattr(node.func, "attr", "")))
        for file, tree in trees("client", "common").items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
    }


def callers(name: str) -> set[str]:
    """The files of client/ and common/ that call something by this name."""
    return {file for file, called in calls() if called == name}


def test_only_the_gate_releases_and_only_the_courier_packs_it() -> None:
    # What client/remote.py builds anew was released on the other side of the trainer's socket.
    assert callers("Released") == {"client/privacy/gate.py", "client/remote.py"}
    assert callers("pack_answer") == {"client/app.py"}
    for builder in ("Message", "RecordDict", "ConfigRecord", "ArrayRecord", "Array"):
        assert callers(builder) == {"common/messages.py"}, builder
    assert callers("MetricRecord") == set()


def test_the_trainers_service_sends_nothing_but_what_was_released() -> None:
    assert callers("Answered") == {"client/service.py"}
    tree = ast.parse((ROOT / "client" / "service.py").read_text())
    parts = {
        ast.unparse(keyword.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and getattr(node.func, "attr", None) == "Answered"
        for keyword in node.keywords
    }
    assert parts == {
        "wire.Progress(done=done, of=of, round=round_number)",
        # What was asked, back as it came.
        "wire.Progress(round=request.round)",
        "wire.Head(kind=kind, json=text)",
        "wire.Head(kind=kind, json=text, weights_bytes=length)",
        "bytes(piece)",
    }
    (answer,) = [n for n in ast.walk(tree) if getattr(n, "name", None) == "_answer"]
    assert isinstance(answer, ast.FunctionDef)
    assert ast.unparse(answer.args) == "released: Released"


PROFILED = replace(LIMITS, profile={"x": 2}, profile_noise_multiplier=2.0)
WITH_PROFILE = replace(EXACT, may_leave=replace(EXACT.may_leave, profile_noise_multiplier=2.0))
PATIENTS = LIMITS.patients_train + LIMITS.patients_held_out
TOLD = replace(FOUND, profile=Profile(patients=PATIENTS, noise_std=0.0, parts={"x": [0.5, 1 / 3]}))


def test_a_profile_leaves_rounded_and_with_the_noise_that_it_has() -> None:
    body = leave(TOLD, None, PROFILED, WITH_PROFILE).body
    assert isinstance(body, EvaluateReply)
    assert body.profile is not None
    assert body.profile.parts == {"x": [0.5, 0.333333]}
    assert body.profile.noise_std == noise_std(2.0, 1, PATIENTS)


@pytest.mark.parametrize(
    ("limits", "policy"),
    [
        (LIMITS, WITH_PROFILE),
        (PROFILED, EXACT),
        (PROFILED, Policy()),
        (replace(PROFILED, profile={"x": 3}), WITH_PROFILE),
        (replace(PROFILED, profile={"y": 2}), WITH_PROFILE),
        (replace(PROFILED, profile_noise_multiplier=1.9), WITH_PROFILE),
        (replace(PROFILED, patients_held_out=PATIENTS + 1), WITH_PROFILE),
        (replace(PROFILED, patients_held_out=9), WITH_PROFILE),
    ],
)
def test_a_profile_that_may_not_leave_stays(limits: Limits, policy: Policy) -> None:
    strict = replace(policy, may_leave=replace(policy.may_leave, metrics={}))
    with pytest.raises(RefusalError, match="held back"):
        leave(replace(TOLD, estimates={}), None, limits, strict)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 2e3, "secret", [0.5], True])
def test_a_number_of_a_profile_that_is_none_refuses_the_answer(bad: Any) -> None:
    broken = Profile(patients=PATIENTS, noise_std=0.0, parts={"x": [0.5, bad]})
    with pytest.raises(RefusalError, match="held back"):
        leave(replace(TOLD, profile=broken), None, PROFILED, WITH_PROFILE)


def test_every_code_of_a_refusal_is_one_that_the_gate_knows() -> None:
    def code_of(first: ast.expr) -> str:
        named = {"NO_BASE": NO_BASE}.get(getattr(first, "id", ""))
        return named or str(getattr(first, "value", None))

    codes = {
        code_of(node.args[0])
        for tree in trees("client").values()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and getattr(node.func, "id", None) == "RefusalError"
    }
    assert codes <= set(CODES)


def written(text: ast.expr) -> str:
    """A text as it stands in the code, with 7 for each value that is put in."""
    if isinstance(text, ast.JoinedStr):
        return "".join(
            str(getattr(part, "value", 7)) if isinstance(part, ast.Constant) else "7"
            for part in text.values
        )
    return str(text.value) if isinstance(text, ast.Constant) else "7"


def test_every_text_that_is_written_for_the_server_can_leave() -> None:
    texts = [
        written(node.args[-1])
        for tree in trees("client").values()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and getattr(node.func, "id", None) in ("RefusalError", "_refuse", "_demand")
    ]
    assert len(texts) > 20
    assert [text for text in texts if not speakable(text)] == []


def test_gate_and_policy_load_no_torch_and_no_flower() -> None:
    code = (
        "import sys, client.privacy.gate, client.privacy.policy;"
        "sys.exit(any(m in sys.modules for m in ('torch', 'flwr', 'opacus', 'hydra')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


GROUPED = replace(LIMITS, subgroups=frozenset({"sex=F", "sex=M"}))
OF_GROUP = replace(DICE, n=11)


def test_a_subgroup_leaves_with_its_own_number_and_the_decimals_of_its_metrics() -> None:
    found = {"sex=F": {"dice": OF_GROUP, "auroc": replace(OF_GROUP, value=0.9)}}
    body = leave(replace(FOUND, subgroups=found), None, GROUPED, EXACT).body
    assert isinstance(body, EvaluateReply)
    assert body.subgroups == {"sex=F": {"dice": Estimate(value=0.81, low=0.71, high=0.9, n=11)}}


@pytest.mark.parametrize(
    "found",
    [
        {"sex=X": {"dice": OF_GROUP}},
        {"sex=F": {"dice": replace(OF_GROUP, n=9)}},
        {"sex=F": {"dice": replace(OF_GROUP, n=13)}},
        {"sex=F": {"dice": OF_GROUP, "auroc": replace(OF_GROUP, n=7)}},
        {"sex=F": {"dice": replace(OF_GROUP, n=True)}},
        {"sex=F": {"names": OF_GROUP}},
        {"sex=F": {}},
        {"sex=F": "p17"},
        "sex=F",
    ],
)
def test_a_subgroup_that_may_not_be_told_of_stays(found: Any) -> None:
    with pytest.raises(RefusalError) as refused:
        leave(replace(FOUND, subgroups=found), None, GROUPED, EXACT)
    assert refused.value.code == "gate"


def test_an_interval_beside_a_noised_subgroup_stays() -> None:
    noised = replace(GROUPED, metrics_noise_multiplier=2.0)
    exact = replace(FOUND, estimates={}, subgroups={"sex=F": {"dice": OF_GROUP}})
    with pytest.raises(RefusalError, match="an interval beside a noised"):
        leave(exact, None, noised, EXACT)


CURVED = replace(EXACT, may_leave=replace(EXACT.may_leave, metrics={"ece": 2}))
POINT = Reliability(confidence=0.912, accuracy=0.75, patients=11)


def test_a_reliability_curve_leaves_rounded() -> None:
    body = leave(replace(FOUND, reliability=[POINT]), None, LIMITS, CURVED).body
    assert isinstance(body, EvaluateReply)
    assert body.reliability == [replace(POINT, confidence=0.91)]


@pytest.mark.parametrize(
    ("point", "limits", "policy"),
    [
        (POINT, LIMITS, EXACT),
        (replace(POINT, patients=9), LIMITS, CURVED),
        (replace(POINT, patients=13), LIMITS, CURVED),
        (replace(POINT, accuracy=1.2), LIMITS, CURVED),
        ("p17", LIMITS, CURVED),
        (POINT, replace(LIMITS, metrics_noise_multiplier=2.0), CURVED),
    ],
)
def test_a_reliability_curve_that_may_not_leave_stays(
    point: Any, limits: Limits, policy: Policy
) -> None:
    with pytest.raises(RefusalError) as refused:
        leave(replace(FOUND, estimates={}, reliability=[point]), None, limits, policy)
    assert refused.value.code == "gate"


CODEC = CodecConfig(numbers="int8")
CODED_LIMITS = replace(LIMITS, codec=CODEC)


def coded_update() -> NDArray[np.uint8]:
    return coded(weights(), CODEC, np.random.default_rng(0))


def test_a_coded_update_leaves_as_it_is_and_whole_weights_do_not() -> None:
    whole = coded_update()
    released = leave(UPDATE, {CODED: whole}, CODED_LIMITS, EXACT)
    assert released.weights is not None
    assert list(released.weights) == [CODED]
    np.testing.assert_array_equal(released.weights[CODED], whole)
    for beside, limits in ((weights(), CODED_LIMITS), ({CODED: whole}, LIMITS)):
        with pytest.raises(RefusalError, match="held back weights"):
            leave(UPDATE, beside, limits, EXACT)


@pytest.mark.parametrize(
    "change",
    [
        lambda w: w[:-1],
        lambda w: w.astype(np.int64),
        lambda w: w.reshape(1, -1),
        lambda w: list(w),
        lambda w: np.append(w, np.uint8(0)),
        lambda w: coded({"a": np.zeros(3, np.float32)}, CODEC, np.random.default_rng(0)),
    ],
)
def test_bytes_that_are_no_coded_update_stay(change: Callable[[Any], Any]) -> None:
    with pytest.raises(RefusalError, match="held back coded weights") as refused:
        leave(UPDATE, {CODED: change(coded_update())}, CODED_LIMITS, EXACT)
    assert speakable(refused.value.text)


def test_coded_numbers_that_are_not_finite_stay() -> None:
    values = {**weights(), "w": np.full((2, 3), np.inf, np.float32)}
    codec = CodecConfig(numbers="float32", kept=1.0)
    whole = coded(values, codec, np.random.default_rng(0))
    with pytest.raises(RefusalError, match="not finite"):
        leave(UPDATE, {CODED: whole}, replace(LIMITS, codec=codec), EXACT)
