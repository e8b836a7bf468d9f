import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from client.calls import Asked, Bench, Call
from client.privacy.speech import speakable
from client.progress import StoppedError
from common.contract import Refusal, RefusalError, Released, Request, StudyReference

REQUEST = Request(study=StudyReference(overrides=[], digest="ab" * 32), round=4)
ASKED = Asked("train", REQUEST, "w")
ANSWER = Released(body=Refusal(site="a", code="data", text="no"))
WAIT_S = 30.0


def answered(call: Call) -> list[tuple[int, int]]:
    return list(call.events())


def test_the_newest_step_is_told_and_then_the_answer() -> None:
    call = Call()
    with ThreadPoolExecutor() as threads:
        told = threads.submit(answered, call)
        for step in range(1, 1000):
            call.step(step, 1000)
        call.finish(ANSWER)
        steps = told.result(WAIT_S)
    assert steps == sorted(set(steps))
    assert all(of == 1000 for _, of in steps)
    assert call.released == ANSWER


def test_a_stopped_call_takes_no_step_and_tells_no_more() -> None:
    call = Call()
    call.step(1, 2)
    call.stop()
    with pytest.raises(StoppedError):
        call.step(2, 2)
    assert answered(call) == []


def test_a_bench_does_one_thing_at_a_time_in_order_and_equal_ones_all() -> None:
    bench, running, log = Bench(), threading.Semaphore(1), []

    def work(number: int) -> Released:
        assert running.acquire(blocking=False)
        log.append(number)
        running.release()
        return ANSWER

    calls = [Call() for _ in range(20)]
    gate = threading.Event()
    bench.start(Call(), ASKED, lambda: (gate.wait(WAIT_S), ANSWER)[1])
    for number, call in enumerate(calls):
        bench.start(call, ASKED, lambda number=number: work(number))
    gate.set()
    assert bench.ended(WAIT_S)
    assert log == list(range(20))
    assert all(call.released == ANSWER for call in calls)


def test_another_request_is_refused_until_the_one_before_is_over_or_stopped() -> None:
    bench, gate, first = Bench(), threading.Event(), Call()
    bench.start(first, ASKED, lambda: (gate.wait(WAIT_S), ANSWER)[1])
    for other in (
        Asked("evaluate", REQUEST, "w"),
        Asked("train", Request(study=REQUEST.study, round=5), "w"),
        Asked("train", REQUEST, "v"),
    ):
        with pytest.raises(RefusalError, match="busy with round 4 of study abababababab;") as no:
            bench.start(Call(), other, lambda: ANSWER)
        assert speakable(no.value.text)
    bench.check("train", REQUEST)
    with pytest.raises(RefusalError):
        bench.check("describe", REQUEST)
    first.stop()
    bench.check("describe", REQUEST)
    gate.set()
    assert bench.ended(WAIT_S)
    bench.start(Call(), Asked("describe", REQUEST, ""), lambda: ANSWER)
    assert bench.ended(WAIT_S)


def test_what_is_stopped_before_its_turn_is_not_begun() -> None:
    bench, gate, begun = Bench(), threading.Event(), threading.Event()
    bench.start(Call(), ASKED, lambda: (gate.wait(WAIT_S), ANSWER)[1])
    second = Call()
    bench.start(second, ASKED, lambda: (begun.set(), ANSWER)[1])
    bench.stop()
    assert not bench.ended(within_s=0.01)
    gate.set()
    assert bench.ended(WAIT_S)
    assert not begun.is_set()
    assert second.released is None


def test_work_that_raises_ends_its_call_and_not_the_bench() -> None:
    bench, call = Bench(), Call()

    def work() -> Released:
        raise StoppedError

    bench.start(call, ASKED, work)
    assert answered(call) == []
    assert bench.ended(WAIT_S)
    assert call.stopped


def test_progress_that_tells_the_same_is_heard_each_time() -> None:
    call = Call()
    events = call.events()
    for _ in range(3):
        call.step(0, 0)
        assert next(events) == (0, 0)
    call.stop()
    assert list(events) == []
