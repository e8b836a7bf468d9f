"""The engine of one process: the ClientApp is called where its answer is pulled.

For tests, debugging and small studies; the same apps as on Ray and in deployment.
"""

import itertools
from collections.abc import Sequence

from flwr.app import Message
from flwr.clientapp import ClientApp

from simulation.engines.grid import answered


class InProcess:
    """Every node's messages are worked off one at a time, when the server asks for the answer.

    So one update is in memory at a time, and there is no wait between push and pull.
    """

    def __init__(self, client_app: ClientApp, num_nodes: int) -> None:
        self.num_nodes = num_nodes
        self._client_app = client_app
        self._waiting: dict[str, Message] = {}
        self._numbers = itertools.count()

    def push(self, messages: Sequence[Message]) -> list[str]:
        """Take the messages in; nothing is worked off yet."""
        identifiers = [str(next(self._numbers)) for _ in messages]
        self._waiting |= zip(identifiers, messages, strict=True)
        return identifiers

    def pull(self, identifier: str) -> Message | None:
        """Work off the message and return its answer."""
        message = self._waiting.pop(identifier, None)
        if message is None:
            return None
        return answered(self._client_app, message, self.num_nodes)

    def end(self) -> None:
        """Nothing is held."""
