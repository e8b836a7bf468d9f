"""What a network does: it is cut, and it is slow."""

import time
from functools import partial

from simulation.chaos.proxy import Line
from simulation.chaos.scenario import VICTIM, Scenario, Stage, must, undisturbed_in_all

SLOW = Line(delay_s=0.1, bytes_per_s=50_000)


def cut_off(seconds: float, stage: Stage) -> str:
    """Cut one site off in round 2, while it trains or hands in."""
    federation, overrides = stage.shared(), stage.study()
    expected = stage.expected(overrides)
    study = federation.run(overrides)
    study.wait_for("round", round=2)
    time.sleep(stage.draws.uniform(0.0, 2.0))
    federation.proxies[VICTIM].cut()
    time.sleep(seconds)
    must(study.run.status()[0] == "running", "the study waits for the site")
    federation.proxies[VICTIM].heal()
    return undisturbed_in_all(federation, study, expected)


def broken_off(stage: Stage) -> str:
    """Break all of a site's connections, again and again."""
    federation, overrides = stage.shared(), stage.study()
    expected = stage.expected(overrides)
    study = federation.run(overrides)
    times = 0
    while study.run.status()[0] == "running":
        federation.proxies[VICTIM].reset()
        times += 1
        time.sleep(stage.draws.uniform(0.2, 1.5))
    return f"{undisturbed_in_all(federation, study, expected)} ({times} times)"


def slow(stage: Stage) -> str:
    """Give one site a line of 50 kB/s with 0.1 s a piece."""
    federation, overrides = stage.shared(), stage.study()
    expected = stage.expected(overrides)
    federation.proxies[VICTIM].set(SLOW)
    try:
        study = federation.run(overrides)
        return undisturbed_in_all(federation, study, expected)
    finally:
        federation.proxies[VICTIM].heal()


SCENARIOS = [
    Scenario("partition 10 s", "a site cut off in round 2", partial(cut_off, 10.0), short=True),
    Scenario("partition 90 s", "a site cut off in round 2", partial(cut_off, 90.0)),
    Scenario("broken connections", "a site's connections reset all the time", broken_off),
    Scenario("slow link", "a site at 50 kB/s, 0.1 s a piece", slow),
]
