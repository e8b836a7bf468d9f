import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from safetensors.numpy import save_file

from client.listening import ListeningError
from client.outbox import KEY
from client.progress import StoppedError
from client.remote import RemoteTrainer, is_serving
from client.service import serving
from client.trainer import trainer_at
from common import trainer_pb2 as wire
from common.bodies import packed_body
from common.contract import Refusal, RefusalError, Released
from common.framing import MOST_BYTES
from common.secret_files import replace_file
from common.state import digest_of
from common.supervision import ENVIRONMENT
from common.trainer_rpc import TrainerStub
from tests.builders import PICTURES, charges_at, initial_weights, request_for
from tests.client.services import (
    DEADLINE_S,
    LONG,
    PRIVATE_ROUND,
    SGD,
    decide,
    ended,
    hospital,
    log_of,
    own_process,
    socket_of,
    until,
    with_approvals,
)

ROOT = Path(__file__).parents[2]
WEIGHTS = initial_weights(*SGD)
"""Of every study here; made once, because networks are not drawn in two threads at a time."""


def train(site: Path, *overrides: str, **changes: Any) -> Released:
    on_progress = changes.pop("on_progress", lambda done, of: True)
    request = request_for(*overrides, **changes)
    remote = RemoteTrainer(socket_of(site), wait_s=10.0)
    return remote.train(request, WEIGHTS, on_progress)


def assert_equal(one: Released, two: Released) -> None:
    """But for the seconds that they took."""
    assert replace(one.body, seconds=0.0) == replace(two.body, seconds=0.0)  # type: ignore[call-arg]
    assert (one.weights is None) == (two.weights is None)
    if one.weights is not None and two.weights is not None:
        assert list(one.weights) == list(two.weights)
        assert digest_of(one.weights) == digest_of(two.weights)


def refusal(released: Released) -> Refusal:
    assert isinstance(released.body, Refusal)
    assert released.weights is None
    return released.body


@pytest.fixture
def site(tmp_path: Path, sockets: Path) -> Path:
    return hospital(tmp_path / "a", sockets)


@pytest.fixture
def serves(site: Path) -> Iterator[Path]:
    """A site whose trainer answers from this process."""
    with serving(site):
        yield site


def test_a_daemons_trainer_keeps_memory_from_step_to_step_and_gives_it_back_then(
    site: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    wide = (*SGD, "model.channels=[32,64]", "data.size=[128,128]", "training.local_steps=10")
    weights = initial_weights(*wide)
    with own_process(site) as process:

        def trained_faults(round_number: int) -> int:
            before = minor_faults(process.pid)
            request = request_for(*wide, round_number=round_number)
            remote = RemoteTrainer(socket_of(site), wait_s=10.0)
            assert remote.train(request, weights, lambda *_: True).weights is not None
            return minor_faults(process.pid) - before

        trained_faults(1)
        # Ten steps with 16 MB and more have them once: they were given back after the first call.
        assert trained_faults(2) < 10 * 16e6 / os.sysconf("SC_PAGE_SIZE") / 4
        # So no image or gradient of a step lies in freed memory until the next call.
        assert status_mb(process.pid, "VmRSS") < status_mb(process.pid, "VmHWM") - 10


def status_mb(pid: int, name: str) -> float:
    """Return a number of /proc/PID/status, in MB."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024e-6 for line in lines if line.startswith(name))


def minor_faults(pid: int) -> int:
    """Return how many pages of memory a process was given so far (proc(5), minflt)."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[10 - 3])


def test_a_trainer_of_its_own_process_gives_the_bytes_of_one_in_this_and_ends_within_a_step(
    site: Path, tmp_path: Path, sockets: Path
) -> None:
    twin = hospital(tmp_path / "twin", sockets)
    for folder in (site.parent, twin.parent):
        (folder / "state").mkdir()
        replace_file(folder / "state" / KEY, bytes(range(32)))
    here, overrides = trainer_at(twin), PRIVATE_ROUND
    request, weights = request_for(*overrides, evaluate=True), WEIGHTS
    with own_process(site) as process:
        there = RemoteTrainer(socket_of(site))
        assert there.describe(request) == here.describe(request)
        steps: list[tuple[int, int]] = []
        update = there.train(request, weights, lambda *step: steps.append(step) is None)
        assert_equal(update, here.train(request, weights))
        assert_equal(there.evaluate(request, weights), here.evaluate(request, weights))
        # The newest is told, not each of them.
        assert steps == sorted(steps)
        assert {of for _, of in steps} <= {0, 30}
        assert charges_at(site.parent) == charges_at(twin.parent)
        with ThreadPoolExecutor() as threads:
            begun = threading.Event()
            call = threads.submit(train, site, *LONG, on_progress=lambda *_: begun.set() is None)
            assert begun.wait(DEADLINE_S)
            # A million steps would take minutes.
            assert ended(process, signal.SIGTERM) == 0
            with pytest.raises(RefusalError, match="does not answer"):
                call.result()
    assert "was stopped" in log_of(site)
    assert not socket_of(site).exists()


def test_a_trainer_killed_in_the_middle_trains_again_and_is_charged_once(
    site: Path, tmp_path: Path, sockets: Path
) -> None:
    calm = hospital(tmp_path / "calm", sockets)
    (calm.parent / "state").mkdir()
    (site.parent / "state").mkdir()
    for folder in (site.parent, calm.parent):
        replace_file(folder / "state" / KEY, bytes(range(32)))
    with own_process(site) as process:

        def kill(done: int, of: int) -> bool:
            if process.poll() is None:
                assert done < of
                ended(process, signal.SIGKILL)
            return True

        with pytest.raises(RefusalError, match="does not answer") as refused:
            train(site, *PRIVATE_ROUND, on_progress=kill)
        assert refused.value.code == "trainer"
    assert len(charges_at(site.parent)) == 1
    with serving(site):
        update = train(site, *PRIVATE_ROUND)
    assert len(charges_at(site.parent)) == 1
    assert_equal(update, trainer_at(calm).train(request_for(*PRIVATE_ROUND), WEIGHTS))


def test_a_cancelled_call_stops_within_a_step_and_keeps_nothing(serves: Path) -> None:
    with pytest.raises(StoppedError):
        train(serves, *LONG, on_progress=lambda done, of: done < 2)
    until(lambda: "was stopped" in log_of(serves))
    assert not (serves.parent / "state" / "last_reply.safetensors").exists()
    # A million steps would take minutes: the trainer is free again.
    assert refusal(train(serves, *SGD, round_number=9)).code == "study"


def test_a_cancelled_round_trains_again_with_the_same_noise_for_one_charge(
    serves: Path, tmp_path: Path
) -> None:
    with pytest.raises(StoppedError):
        train(serves, *PRIVATE_ROUND, on_progress=lambda done, of: False)
    until(lambda: "was stopped" in log_of(serves))
    again = train(serves, *PRIVATE_ROUND)
    assert len(charges_at(serves.parent)) == 1
    twin = shutil.copytree(serves.parent, tmp_path / "twin")
    (twin / "state" / "last_reply.safetensors").unlink()
    undisturbed = trainer_at(twin / "site.yaml").train(
        request_for(*PRIVATE_ROUND), initial_weights(*SGD)
    )
    assert_equal(again, undisturbed)


COURIER = """
import sys
from pathlib import Path
from safetensors.numpy import load_file
from client.remote import RemoteTrainer
from common.bodies import unpacked_body
from common.contract import Request
request = unpacked_body("Request", sys.argv[1], Request)
RemoteTrainer(Path(sys.argv[2])).train(
    request, load_file(sys.argv[3]), lambda *_: print("on", flush=True) is None
)
"""


def test_a_courier_that_dies_ends_the_work(serves: Path, tmp_path: Path) -> None:
    _, request = packed_body(request_for(*LONG))
    save_file(dict(WEIGHTS), tmp_path / "w")
    words = [sys.executable, "-c", COURIER, request, str(socket_of(serves)), str(tmp_path / "w")]
    with subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, text=True) as courier:
        assert courier.stdout is not None
        assert courier.stdout.readline() == "on\n"
        os.kill(courier.pid, signal.SIGKILL)
    until(lambda: "was stopped" in log_of(serves))


def test_another_request_is_refused_as_busy_and_the_same_one_waits_for_its_answer(
    serves: Path,
) -> None:
    begun, go = threading.Event(), threading.Event()

    def first(done: int, of: int) -> bool:
        begun.set()
        return not go.is_set()

    with ThreadPoolExecutor() as threads:
        one: Future[Released] = threads.submit(train, serves, *LONG, on_progress=first)
        assert begun.wait(DEADLINE_S)
        busy = refusal(train(serves, *LONG, round_number=2))
        assert busy.code == "trainer"
        digest = request_for(*LONG).study.digest
        assert busy.text == (
            f"this site is busy with round 1 of study {digest[:12]}; ask again later"
        )
        other = {n: array + 1 for n, array in WEIGHTS.items()}
        remote = RemoteTrainer(socket_of(serves))
        assert refusal(remote.train(request_for(*LONG), other)).code == "trainer"
        assert refusal(remote.evaluate(request_for(*LONG), other)).code == "trainer"
        # The same one waits, and trains as soon as the first was cancelled.
        two = threads.submit(train, serves, *LONG, on_progress=lambda *_: False)
        go.set()
        for call in (one, two):
            with pytest.raises(StoppedError):
                call.result()


def test_two_equal_requests_at_once_get_the_same_bytes_for_one_charge(serves: Path) -> None:
    with ThreadPoolExecutor() as threads:
        both = [threads.submit(train, serves, *PRIVATE_ROUND) for _ in range(3)]
        first, *others = (call.result() for call in both)
    for other in others:
        assert other.body == first.body
        assert_equal(other, first)
    assert len(charges_at(serves.parent)) == 1


def test_a_model_of_20_megabytes_passes_in_pieces(serves: Path) -> None:
    large = (*SGD, "model.channels=[256,512,512]", "training.local_steps=1")
    weights = initial_weights(*large)
    assert sum(array.nbytes for array in weights.values()) > 14_000_000
    remote = RemoteTrainer(socket_of(serves))
    update = remote.train(request_for(*large), weights)
    assert update.weights is not None
    assert {n: a.shape for n, a in update.weights.items()} == {
        n: a.shape for n, a in weights.items()
    }
    assert all(np.isfinite(array).all() for array in update.weights.values())
    assert digest_of(update.weights) != digest_of(weights)


GOOD = request_for(*PICTURES)


def head(**changes: Any) -> wire.Asked:
    kind, text = packed_body(GOOD)
    return wire.Asked(head=wire.Head(**{"kind": kind, "json": text, **changes}))


@pytest.mark.parametrize(
    ("parts", "told"),
    [
        ([], "no head"),
        ([wire.Asked()], "no head"),
        ([wire.Asked(piece=b"x")], "no head"),
        ([head(kind="TrainReply")], "expected Request"),
        ([head(json='{"round": 1}')], "own log says why"),
        ([head(json="{")], "own log says why"),
        ([head(json='{"study": "/etc/passwd"}')], "own log says why"),
        ([head(), wire.Asked(piece=b"x")], "another length than was announced"),
        ([head(weights_bytes=4), wire.Asked(piece=b"x")], "another length than was announced"),
        ([head(weights_bytes=8), wire.Asked(piece=b"garbage!")], "cut off in their header"),
        ([head(weights_bytes=MOST_BYTES + 1)], "impossible length"),
        ([head(weights_bytes=2**64 - 1)], "impossible length"),
    ],
)
def test_garbage_is_refused_as_a_message_and_the_trainer_goes_on(
    parts: list[wire.Asked], told: str, serves: Path
) -> None:
    with closing(grpc.insecure_channel(f"unix:{socket_of(serves)}")) as channel:
        answers = list(TrainerStub(channel).Train(iter(parts)))
    assert [answer.WhichOneof("part") for answer in answers] == ["head"]
    assert answers[0].head.kind == "Refusal"
    assert '"message"' in answers[0].head.json
    assert told in answers[0].head.json
    assert "passwd" not in answers[0].head.json
    assert is_serving(socket_of(serves))


def test_a_study_trains_once_it_is_approved_and_no_more_once_it_is_rejected(serves: Path) -> None:
    with_approvals(serves)
    digest = request_for(*SGD).study.digest
    text = f"the server runs study {digest}, this site composes study {digest}"
    refused = refusal(train(serves, *SGD))
    assert (refused.code, refused.text) == ("policy", f"{text}; it is not approved here")
    decide("approve", serves, digest)
    assert train(serves, *SGD).weights is not None
    decide("reject", serves, digest)
    assert refusal(train(serves, *SGD)) == refused


def test_a_rejection_in_the_middle_of_a_round_ends_it_and_nothing_is_kept(serves: Path) -> None:
    with_approvals(serves)
    digest = request_for(*LONG).study.digest
    assert refusal(train(serves, *LONG)).code == "policy"
    decide("approve", serves, digest)
    rejecting: list[Future[None]] = []
    with ThreadPoolExecutor(1) as officer:

        def rejects(done: int, of: int) -> bool:
            if not rejecting:
                rejecting.append(officer.submit(decide, "reject", serves, digest))
            return True

        refused = refusal(train(serves, *LONG, on_progress=rejects))
    rejecting[0].result()
    assert "not approved here" in refused.text
    assert not (serves.parent / "state" / "last_reply.safetensors").exists()


def test_the_weights_of_a_study_that_nobody_approved_are_not_taken_in(serves: Path) -> None:
    with_approvals(serves)
    kind, text = packed_body(request_for(*SGD))
    head = wire.Asked(head=wire.Head(kind=kind, json=text, weights_bytes=MOST_BYTES))
    taken = 0

    def parts() -> Iterator[wire.Asked]:
        nonlocal taken
        yield head
        while taken < 1000:
            taken += 1
            yield wire.Asked(piece=bytes(2**20))

    with closing(grpc.insecure_channel(f"unix:{socket_of(serves)}")) as channel:
        answers = list(TrainerStub(channel).Train(parts()))
    assert "not approved here" in answers[0].head.json
    # What the sockets hold, and not a gigabyte.
    assert taken < 100


def test_consent_is_asked_without_weights(serves: Path) -> None:
    with_approvals(serves)
    remote = RemoteTrainer(socket_of(serves), wait_s=10.0)
    request = request_for(*SGD)
    refused = remote.consent(request)
    assert refused is not None
    assert "not approved here" in refusal(refused).text
    decide("approve", serves, request.study.digest)
    assert remote.consent(request) is None


def test_a_trainer_does_not_start_where_all_may_enter_or_another_listens(serves: Path) -> None:
    with pytest.raises(ListeningError, match="another trainer listens"), serving(serves):
        pass
    socket_of(serves).parent.chmod(0o777)
    with pytest.raises(ListeningError, match="chmod o-rwx"), serving(serves):
        pass
    assert is_serving(socket_of(serves))


def test_health_is_told_of_the_whole_and_of_the_trainer(serves: Path) -> None:
    with closing(grpc.insecure_channel(f"unix:{socket_of(serves)}")) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        for name in ("", "wardround.Trainer"):
            found = stub.Check(health_pb2.HealthCheckRequest(service=name))
            assert found.status == health_pb2.HealthCheckResponse.SERVING
