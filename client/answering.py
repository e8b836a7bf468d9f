"""What a node does with a message: asks consent, brings the weights, has it worked off.

A message of a run whose bundle is not the code-free one of the installed version is refused.
"""

from dataclasses import dataclass
from pathlib import Path

from flwr.app import Message
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

from client import app as courier
from client.fleet import Received
from client.status import StatusFile
from client.weights import Transfers
from client.words import Teller, Work
from common.bundle import code_free_bundle
from common.contract import RefusalError, Request
from common.messages import MessageError, context_of, put_in, unpack_request, weights_at


@dataclass(frozen=True, kw_only=True)
class Answers:
    """The answers of one site, over one connection."""

    site: str
    socket: Path
    """Where its trainer listens."""
    status: StatusFile
    teller: Teller
    weights: Transfers

    def to(self, received: Received) -> Message:
        """Return the answer to a message; its weights are in it.

        Raises:
            httpx.HTTPError: the centre cannot be reached for the weights.
            StoppedError: the answer is no longer of use.
        """
        message, run = received.message, received.run
        # Flower has no public way to say which run a process belongs to; a Message needs it.
        TaskIdentity.task_id = TaskIdentity.run_id = run.run_id
        TaskIdentity.node_id = message.metadata.dst_node_id
        if run.fab_hash != code_free_bundle().sha256:
            self.status.error(f"refused the bundle {run.fab_hash}, which is not installed here")
            return courier.refuse(message, self.site, courier.other_bundle(run.fab_hash))
        try:
            request = unpack_request(message.content)
            self.status.change(study=request.study.digest, round=request.round, done=0, of=0)
            self.teller.now(Work(run=folder_of(run), round=request.round))
            return self._worked_off(message, request, folder_of(run))
        except (RefusalError, MessageError) as error:
            return courier.refuse(message, self.site, error)
        finally:
            self.teller.now(Work())

    def _worked_off(self, message: Message, request: Request, run: str) -> Message:
        told: dict[str, str | float] = {
            courier.SOCKET: str(self.socket),
            courier.SITE_NAME: self.site,
        }
        context = context_of(message, told)
        reference = weights_at(message.content)
        if reference is not None:
            # Nothing is taken in for a study that the trainer would turn down.
            refusal = courier.turned_down(message, request, context)
            if refusal is not None:
                return refusal
            put_in(message.content, self.weights.fetch(run, reference))
        return courier.app(message, context)


def folder_of(run: Run) -> str:
    """Return the name of the run's folder at the centre."""
    return str(run.override_config.get("run", ""))
