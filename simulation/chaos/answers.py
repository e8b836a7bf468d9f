"""Answers that are duplicate, late or corrupt: a site whose node hands them in wrongly."""

from functools import partial

from simulation.chaos.federation import AskedStudy, Federation
from simulation.chaos.scenario import (
    VICTIM,
    Scenario,
    Stage,
    missed_in,
    must,
    undisturbed_in_all,
)
from simulation.chaos.waiting import until

ROUND_TIMEOUT_S, LATE_S = 30.0, 36.0
OPEN = "privacy=none"
"""Without noise a model's bytes do not depend on the study's name, so studies can be compared."""


def _played(federation: Federation, overrides: list[str], fault: str) -> AskedStudy:
    """Run a study in which the victim's node is a rogue; the honest one comes back after it."""
    site = federation.sites[VICTIM]
    federation.end_site(VICTIM)
    trainer = federation.processes.begin(
        "trainer", "client.cli", "trainer", "--site", str(site.yaml)
    )
    rogue = federation.processes.begin(
        "rogue",
        "simulation.chaos.rogue",
        *(str(site.state), str(site.socket), fault, "2", str(LATE_S)),
    )
    try:
        federation.wait_for_site(site)
        study = federation.run(overrides)
        study.wait()
        return study
    finally:
        federation.processes.end(rogue)
        federation.processes.end(trainer)
        federation.start_sites(VICTIM)


def twice(stage: Stage) -> str:
    """Hand an update in twice."""
    federation, overrides = stage.shared(), stage.study()
    expected = stage.expected(overrides)
    study = _played(federation, overrides, "twice")
    return undisturbed_in_all(federation, study, expected)


def late(stage: Stage) -> str:
    """Hand an update in after its round has closed."""
    federation = stage.shared()
    overrides = stage.study(OPEN, f"strategy.round_timeout_s={ROUND_TIMEOUT_S:g}")
    study = _played(federation, overrides, "late")
    held = missed_in(stage, federation, study, 2, "no answer within")
    until("the late answer is counted", lambda: bool(study.told("late", site=VICTIM)), 1.0)
    return f"{held}; the late answer dropped and counted"


def corrupt(fault: str, reason: str, stage: Stage) -> str:
    """Hand in an update with a broken tensor."""
    federation, overrides = stage.shared(), stage.study(OPEN)
    study = _played(federation, overrides, fault)
    must(not study.told("again"), "a refused update is not asked for again")
    return missed_in(stage, federation, study, 2, reason)


SCENARIOS = [
    Scenario("duplicate answer", "an update handed in twice", twice),
    Scenario("late answer", "an update handed in after the round closed", late),
    Scenario("NaN weights", "an update of NaN", partial(corrupt, "nan", "NaN"), short=True),
    Scenario("corrupt shape", "a tensor of another shape", partial(corrupt, "shape", "shape")),
    Scenario("corrupt bytes", "a tensor of other bytes", partial(corrupt, "bytes", "header")),
]
