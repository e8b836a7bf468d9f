"""kill -9 of each kind of process, at a moment that is drawn."""

import time
from functools import partial

from simulation.chaos.federation import Federation
from simulation.chaos.scenario import VICTIM, Scenario, Stage, undisturbed_in_all

AT_SITE = ("site", "node", "trainer")
IN_WORDS = {
    "server": "the centre's supervisor, started again after 5 s",
    "link": "the SuperLink's process",
    "exec": "the SuperExec",
    "serverapp": "the study's process",
    "site": "a site's supervisor, started again after 5 s",
    "node": "a site's node",
    "trainer": "a site's trainer",
}
DOWN_S = 5.0
ROUND_S = 4.0


def killed(kind: str, stage: Stage) -> str:
    """Kill a process in a round that is drawn, a while after it has begun."""
    federation, overrides = stage.shared(), stage.study()
    expected = stage.expected(overrides)
    study = federation.run(overrides)
    number, pause_s = stage.draws.randint(1, 3), stage.draws.uniform(0.0, ROUND_S)
    study.wait_for("round", round=number)
    time.sleep(pause_s)
    of = federation.sites[VICTIM].folder.name if kind in AT_SITE else ""
    pid = federation.processes.kill(kind, of)
    _started_again(federation, kind)
    held = undisturbed_in_all(federation, study, expected)
    return f"{held} (round {number} + {pause_s:.1f} s, pid {pid})"


def _started_again(federation: Federation, kind: str) -> None:
    """Do what the machine's service manager does, where a supervisor was killed."""
    if kind not in ("server", "site"):
        return
    time.sleep(DOWN_S)
    if kind == "server":
        federation.start_server()
    else:
        federation.start_sites(VICTIM)


SCENARIOS = [
    Scenario(f"kill {kind}", f"kill -9 of {words}", partial(killed, kind), short=kind in short)
    for short in [("server", "trainer")]
    for kind, words in IN_WORDS.items()
]
