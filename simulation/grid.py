"""Flower's Grid in one process: the ClientApp is called where its answer is pulled.

For tests, debugging and small studies; the same apps as on the Ray engine and in deployment.
"""

from collections.abc import Iterable

from flwr.app import Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.common.constant import ErrorCode
from flwr.serverapp import Grid
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

SERVER_NODE = 1


class InProcessGrid(Grid):
    """Every node's messages are worked off one at a time, when the server asks for the answer.

    So one update is in memory at a time, and there is no wait between push and pull.
    """

    def __init__(self, client_app: ClientApp, num_nodes: int) -> None:
        # Flower has no public way to say which run a process belongs to; a Message needs it.
        TaskIdentity.task_id = TaskIdentity.run_id = TaskIdentity.node_id = SERVER_NODE
        self._client_app = client_app
        self._run = Run.create_empty(SERVER_NODE)
        self._contexts = {
            SERVER_NODE + 1 + partition: _context(partition, num_nodes)
            for partition in range(num_nodes)
        }
        self._waiting: dict[str, Message] = {}

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
        return list(self._contexts)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Take the messages in; nothing is worked off yet."""
        identifiers = []
        for message in messages:
            identifiers.append(f"{len(self._waiting)}-{message.metadata.dst_node_id}-{id(message)}")
            self._waiting[identifiers[-1]] = message
        return identifiers

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Work off the messages and return their answers."""
        return [self._answer(self._waiting.pop(i)) for i in message_ids if i in self._waiting]

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """Push and pull; timeout has no meaning where nothing waits."""
        return self.pull_messages(self.push_messages(messages))

    def _answer(self, message: Message) -> Message:
        try:
            return self._client_app(message, self._contexts[message.metadata.dst_node_id])
        except Exception as error:  # as Flower's own workers do
            failed = Error(ErrorCode.CLIENT_APP_RAISED_EXCEPTION, type(error).__name__)
            return Message(failed, reply_to=message)


def _context(partition: int, num_nodes: int) -> Context:
    return Context(
        run_id=SERVER_NODE,
        node_id=SERVER_NODE + 1 + partition,
        node_config={"partition-id": partition, "num-partitions": num_nodes},
        state=RecordDict(),
        run_config={},
    )
