"""Flower's Grid over an engine of one machine, or of a Ray cluster."""

from collections.abc import Iterable, Sequence
from typing import Protocol

from flwr.app import Error, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.common.constant import ErrorCode
from flwr.serverapp import Grid
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

from common.messages import context_of

SERVER_NODE = 1


class Engine(Protocol):
    """Works messages off: each on the ClientApp, for the node that it is addressed to."""

    num_nodes: int

    def push(self, messages: Sequence[Message]) -> list[str]:
        """Take the messages in, in the order in which their answers will be pulled."""
        ...

    def pull(self, identifier: str) -> Message | None:
        """Return the answer to a message, once; None where there is none so far."""
        ...

    def end(self) -> None:
        """Let go of all that the engine holds."""
        ...


class SimulatedGrid(Grid):
    """What a ServerApp sees of the nodes; the engine does the work."""

    def __init__(self, engine: Engine) -> None:
        identify()
        self._engine = engine
        self._run = Run.create_empty(SERVER_NODE)

    def set_run(self, run: Run) -> None:
        """Set the run that the grid works in."""
        self._run = run

    @property
    def run(self) -> Run:
        """The run that the grid works in."""
        return self._run

    def create_message(
        self,
        content: RecordDict,
        message_type: str,
        dst_node_id: int,
        group_id: str,
        ttl: float | None = None,
    ) -> Message:
        """Return a message of the run."""
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def get_node_ids(self) -> Iterable[int]:
        """Return every node."""
        return [node_of(partition) for partition in range(self._engine.num_nodes)]

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Hand the messages to the engine."""
        return self._engine.push(list(messages))

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Return the answers that are there; an engine may work or wait for one meanwhile."""
        found = [self._engine.pull(identifier) for identifier in message_ids]
        return [answer for answer in found if answer is not None]

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """Push and pull; an engine answers every message, so timeout has no meaning."""
        answers = []
        for identifier in self.push_messages(messages):
            while (answer := self._engine.pull(identifier)) is None:
                pass
            answers.append(answer)
        return answers


def identify() -> None:
    """Say that this process belongs to a run: a Message needs it, and Flower has no public way."""
    TaskIdentity.task_id = TaskIdentity.run_id = TaskIdentity.node_id = SERVER_NODE


def node_of(partition: int) -> int:
    """Return the node of a place among the sites."""
    return SERVER_NODE + 1 + partition


def partition_of(node: int) -> int:
    """Return the place among the sites of a node."""
    return node - SERVER_NODE - 1


def answered(client_app: ClientApp, message: Message, num_nodes: int) -> Message:
    """Return the ClientApp's answer, or that it failed, as Flower's own workers do.

    A node keeps nothing between messages, as in deployment.
    """
    place = {"partition-id": partition_of(message.metadata.dst_node_id)}
    try:
        return client_app(message, context_of(message, {**place, "num-partitions": num_nodes}))
    except Exception as error:
        failed = Error(ErrorCode.CLIENT_APP_RAISED_EXCEPTION, type(error).__name__)
        return Message(failed, reply_to=message)
