"""The hospital's half that has the network: a Flower node that takes no code.

A message is answered by the courier that is installed here (client/app.py), in this process. A
run's bundle is never fetched, so there is nothing to unpack or run.

    python -m client.node STATE_FOLDER SOCKET
"""

import logging
import os
import signal
import ssl
import sys
import threading
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from common.daemon_log import daemon_log
from common.supervision import ENVIRONMENT, end_with_supervisor

# Flower reads its switches when it is first imported.
os.environ.update(ENVIRONMENT)

import httpx
from flwr.app import Message
from flwr.supercore.run import Run, RunNotRunningException

from client import app as courier
from client.answering import Answers, folder_of
from client.enrolment import Membership, membership
from client.fleet import ConnectionLostError, Fleet, connected, in_words, passes
from client.progress import StoppedError
from client.status import StatusFile
from client.weights import Transfers
from client.words import Teller
from common.certificates import CertificateError, read_private_key
from common.contract import Description, Refusal, TrainReply
from common.credentials import watch_certificate
from common.messages import framed_weights, put_beside, unpack_answer

SHORTEST_LOOK_S, LONGEST_LOOK_S, SHARE = 0.25, 4.0, 0.2
"""The pause before the centre is asked again for a message: a share of the time without one."""
TELL_S = 2.0
TIMEOUT = httpx.Timeout(30.0, write=60.0)
KEPT = httpx.Limits(keepalive_expiry=50.0)
"""An idle connection is kept, less long than the centre keeps it (server/daemon/listener.py): a TLS
handshake costs the centre more than most requests."""
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 8.0


@dataclass(frozen=True)
class Centre:
    """A connection to the centre: messages, words of the work, weights, and what is answered."""

    fleet: Fleet
    teller: Teller
    weights: Transfers
    answers: Answers


class Pauses:
    """Pauses between attempts, each longer than the one before."""

    def __init__(self, ended: threading.Event) -> None:
        self._ended = ended
        self.next_s = FIRST_PAUSE_S

    def wait(self) -> None:
        """Pause; the next one will be longer."""
        self._ended.wait(self.next_s)
        self.next_s = min(2 * self.next_s, LONGEST_PAUSE_S)

    def over(self) -> None:
        """Begin anew: an attempt has succeeded."""
        self.next_s = FIRST_PAUSE_S


@dataclass
class Node:
    """The node of one site, until it is ended."""

    state: Path
    socket: Path
    log: logging.Logger
    ended: threading.Event

    def __post_init__(self) -> None:
        self.told_at = 0.0
        self.status = StatusFile(self.state)

    def run(self) -> None:
        """Be connected for ever: after a failure again, each time after a longer pause."""
        turn, pauses = 0, Pauses(self.ended)
        while not self.ended.is_set():
            try:
                self._connected(membership(self.state), turn, pauses)
            except (ConnectionLostError, CertificateError) as error:
                self._lost(self._with_end(str(error)), pauses)
            turn += 1
        self.status.connection(False)

    def _connected(self, member: Membership, turn: int, pauses: Pauses) -> None:
        """Answer messages until the centre does not know this node any more."""
        centre = member.centre
        address = f"{centre.hosts[turn % len(centre.hosts)]}:{centre.port}"
        tls = _tls_of(member)
        key = read_private_key(member.credentials.key_of(member.certificate))
        with (
            httpx.Client(
                base_url=f"https://{address}", verify=tls, timeout=TIMEOUT, limits=KEPT
            ) as client,
            connected(client, key) as fleet,
        ):
            renew = watch_certificate(tls, member.credentials)
            teller = Teller(client, self.log, renew)
            courier.LISTENER.set(partial(self._step, teller))
            self.log.info("connected to %s as %s", address, centre.site)
            weights = Transfers(client, teller.step)
            answers = Answers(
                site=centre.site,
                socket=self.socket,
                status=self.status,
                teller=teller,
                weights=weights,
            )
            try:
                self._serve(Centre(fleet, teller, weights, answers), pauses)
            finally:
                teller.close()

    def _serve(self, centre: Centre, pauses: Pauses) -> None:
        worked_at = time.monotonic()
        while not self.ended.is_set():
            try:
                worked = self._worked(centre)
            except httpx.HTTPError as error:
                if not passes(error):
                    raise
                # A message that was on its way is lost, and the centre takes it for delivered.
                centre.teller.begin_session()
                self._lost(in_words(error, "the centre"), pauses)
                continue
            self.status.connection(True)
            pauses.over()
            if worked:
                worked_at = time.monotonic()
            else:
                self.ended.wait(pause_s(time.monotonic() - worked_at))

    def _with_end(self, why: str) -> str:
        """Return why a connection was lost, and that the certificate has ended if it has.

        The centre breaks off the handshake then, which looks like any other broken connection.
        """
        try:
            end = membership(self.state).certificate.not_valid_after_utc
        except CertificateError:
            return why
        if datetime.now(UTC) < end:
            return why
        return (
            f"this site's certificate ended on {end:%Y-%m-%d %H:%M} UTC; ask the centre for a new "
            f"one (wardround-server rotate), then wardround-site join ({why})"
        )

    def _lost(self, why: str, pauses: Pauses) -> None:
        self.status.connection(False)
        self.status.error(why)
        self.log.warning("%s; tried again in %.0f s", why, pauses.next_s)
        pauses.wait()

    def _worked(self, centre: Centre) -> bool:
        """Answer a message; return whether there was one."""
        try:
            received = centre.fleet.receive()
            if received is None:
                return False
            began = time.monotonic()
            reply = centre.answers.to(received)
            self._hand_in(centre, received.run, reply, time.monotonic() - began)
            self.status.change(last_answer=in_plain_words(reply))
        except RunNotRunningException:
            self.log.info("the study has ended meanwhile; its message is dropped")
        except StoppedError:
            self.log.info("the study was stopped meanwhile; its answer is dropped")
        return True

    def _step(self, teller: Teller, done: int, of: int) -> bool:
        if time.monotonic() - self.told_at > TELL_S or 0 < done == of:
            self.status.change(done=done, of=of)
            self.told_at = time.monotonic()
        return teller.step()

    def _hand_in(self, centre: Centre, run: Run, reply: Message, seconds: float) -> None:
        """Hand an answer in, again and again while the centre is starting or ending."""
        pauses = Pauses(self.ended)
        while not self.ended.is_set():
            try:
                framed = framed_weights(reply.content)
                if framed is not None:
                    # First the weights: an answer that names them is read at once.
                    put_beside(reply.content, centre.weights.hand_in(folder_of(run), framed))
                return centre.fleet.send(reply, seconds)
            except httpx.HTTPError as error:
                # Asked again the trainer has the same answer, and it is paid for.
                if not passes(error):
                    raise
                self._lost(in_words(error, "the centre"), pauses)
        return None


def pause_s(waited_s: float) -> float:
    """Return the pause before the next look, for a node that has had no message for so long.

    Looks grow rarer as a round grows longer: what a look costs the centre is paid by every site.
    """
    return min(max(SHARE * waited_s, SHORTEST_LOOK_S), LONGEST_LOOK_S)


def in_plain_words(reply: Message) -> str:
    """Return what an answer told the centre."""
    answer = unpack_answer(reply.content)
    if isinstance(answer, Refusal):
        return f"refused ({answer.code}): {answer.text}"
    if isinstance(answer, Description):
        return "told how many patients there are"
    what = "update" if isinstance(answer, TrainReply) else "evaluation"
    return f"handed in the {what} of round {answer.round}"


def _tls_of(member: Membership) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_verify_locations(cafile=member.ca_certificate)
    member.credentials.load_into(context)
    return context


def main() -> None:
    """Run as a part of the site's daemon."""
    end_with_supervisor()
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    state, socket = map(Path, sys.argv[1:])
    Node(state, socket, daemon_log("node"), ended).run()


if __name__ == "__main__":
    main()
