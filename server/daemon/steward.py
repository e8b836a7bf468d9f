"""What the SuperLink's process does by itself: its nodes are the sites, its runs the studies.

Both are read from the server's folder again and again, so that the folder alone says what is to
be: nothing is lost when this process dies, and no port has to take orders.
"""

import json
import logging
import time
from dataclasses import replace

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_ssh_public_key
from flwr.common.constant import NOOP_ACCOUNT_NAME, NOOP_FLWR_AID, Status
from flwr.common.serde import user_config_to_proto
from flwr.proto.control_pb2 import RegisterNodeRequest, StartRunRequest
from flwr.proto.fab_pb2 import Fab
from flwr.server.superlink.linkstate import LinkStateFactory
from flwr.supercore.auth.typing import AccountInfo
from flwr.supercore.primitives.asymmetric import public_key_to_bytes
from flwr.superlink.servicer.control import control_handlers

from common.bundle import code_free_bundle
from server.federation.home import Home
from server.federation.registry import Registry
from server.studies import Attempt, StudyRun, runs_in
from server.weights import InFiles

ACCOUNT = AccountInfo(NOOP_FLWR_AID, NOOP_ACCOUNT_NAME)
START_S = 90.0
"""How long the first attempt may take until its process holds the study's folder; that of a process
which has ended is noticed at once."""
MOST_FRUITLESS = 5
GONE = "unregistered"


def start_patience_s(fruitless: int) -> float:
    """Return how long an attempt may take to start after so many that came to nothing, in s.

    Twice as long each time: a machine with much else to do may need minutes to start a process, and
    a limit that never grows would end every attempt just before it begins.
    """
    return START_S * 2.0**fruitless


class Steward:
    """Brings the SuperLink's nodes and runs to what the folder says."""

    def __init__(self, home: Home, states: LinkStateFactory, log: logging.Logger) -> None:
        """states: the SuperLink's factory of LinkStates."""
        self._home = home
        self._registry = Registry(home)
        self._states = states
        self._log = log
        self._begun: set[int] = set()
        """The Flower runs that this process began."""

    def tend(self) -> None:
        """Look once; a failure is told, and the next look tries again."""
        try:
            self._nodes()
        except Exception:
            self._log.exception("the nodes could not be looked after")
        for run in runs_in(self._home.path):
            try:
                self._run(run)
            except Exception:
                self._log.exception("study %s could not be looked after", run.folder.name)

    def _nodes(self) -> None:
        state = self._states.state()
        wanted = {node_key(site.public_key): site.name for site in self._registry.admitted()}
        have = {
            node.public_key: node
            for node in state.get_node_info(owner_aids=[NOOP_FLWR_AID])
            if node.status != GONE
        }
        for key in wanted.keys() - have.keys():
            request = RegisterNodeRequest(public_key=key, name=wanted[key])
            control_handlers.register_node(request, ACCOUNT, state)
            self._log.info("site %s may connect", wanted[key])
        for key in have.keys() - wanted.keys():
            state.delete_node(owner_aid=NOOP_FLWR_AID, node_id=have[key].node_id)
            self._log.info("site %s may not connect any more", have[key].name)

    def _run(self, run: StudyRun) -> None:
        status, _ = run.status()
        if status not in ("running", "stopping"):
            # What a killed process left beside its messages; its models are elsewhere.
            InFiles(run.folder).end()
            return
        attempt = run.attempt
        if attempt is None:
            # Also one that is to be stopped: its process writes that it was.
            self._begin(run, Attempt(flower_run=0, begun_at=time.time()))
            return
        if run.worked_on() or abs(time.time() - attempt.begun_at) < self._patience(run, attempt):
            return
        if run.status()[0] not in ("running", "stopping"):
            # It ended between the two looks.
            return
        rounds = run.rounds_done()
        fruitless = attempt.fruitless if rounds <= attempt.rounds_done else 0
        # What ended with the centre itself is no fault of the study.
        fruitless += attempt.flower_run in self._begun
        if fruitless >= MOST_FRUITLESS:
            why = f"its process ended {fruitless} times without a new round; see the server's log"
            run.keep_attempt(replace(attempt, gave_up=why))
            self._log.error("study %s: %s", run.folder.name, why)
            return
        self._log.warning("study %s has lost its process and is begun again", run.folder.name)
        self._begin(
            run,
            Attempt(flower_run=0, begun_at=time.time(), fruitless=fruitless, rounds_done=rounds),
        )

    def _patience(self, run: StudyRun, attempt: Attempt) -> float:
        if run.last_event_at() > attempt.begun_at:
            # Its process has held the folder, and does not any more.
            return 0.0
        state = self._states.state()
        found = state.get_run_info(run_ids=[attempt.flower_run])
        over = not found or found[0].status.status == Status.FINISHED
        return 0.0 if over else start_patience_s(attempt.fruitless)

    def _begin(self, run: StudyRun, attempt: Attempt) -> None:
        state = self._states.state()
        old = run.attempt
        if old is not None and state.get_run_info(run_ids=[old.flower_run]):
            state.stop_run(old.flower_run)
        bundle, asked = code_free_bundle(), run.asked
        request = StartRunRequest(
            fab=Fab(hash_str=bundle.sha256, content=bundle.content),
            override_config=user_config_to_proto(
                {
                    "run": run.folder.name,
                    "overrides": json.dumps(asked.overrides),
                    "sites": json.dumps(asked.sites),
                }
            ),
        )
        # Before the start: a disk that is full must not begin a run at each look.
        run.keep_attempt(attempt)
        begun = control_handlers.start_run(request, ACCOUNT, state, None)
        self._begun.add(begun.run_id)
        run.keep_attempt(replace(attempt, flower_run=begun.run_id))
        self._log.info("study %s begun", run.folder.name, extra={"flower_run": begun.run_id})


def node_key(openssh: str) -> bytes:
    """Return a site's public key as Flower registers it."""
    key = load_ssh_public_key(openssh.encode())
    assert isinstance(key, ec.EllipticCurvePublicKey)  # the registry admits no other
    return public_key_to_bytes(key)
