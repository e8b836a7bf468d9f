"""Flower's fleet protocol from a hospital's side, over mutual TLS; no bundle is ever fetched.

The SuperNode's own functions without the SuperNode (Flower 1.41, flwr/supernode): it would fetch
the server's bundle, unpack it and start a process from it for every message, has no place for a
client certificate, ends the process where a connection cannot be made, and sleeps three seconds
between two looks. flwr is pinned.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import httpx
from cryptography.hazmat.primitives.asymmetric import ec
from flwr.app import Message
from flwr.app.message import remove_content_from_message
from flwr.common.serde import message_from_proto, message_to_proto, run_from_proto
from flwr.proto.fleet_pb2 import (
    ActivateNodeRequest,
    DeactivateNodeRequest,
    PullMessagesRequest,
    PushMessagesRequest,
    PushMessagesResponse,
)
from flwr.proto.heartbeat_pb2 import SendNodeHeartbeatRequest
from flwr.proto.node_pb2 import Node
from flwr.proto.run_pb2 import GetRunRequest
from flwr.supercore.inflatable.inflatable_object import (
    get_all_nested_objects,
    get_object_tree,
    no_object_id_recompute,
)
from flwr.supercore.inflatable.inflatable_protobuf_utils import (
    make_confirm_message_received_fn_protobuf,
    make_pull_object_fn_protobuf,
    make_push_object_fn_protobuf,
)
from flwr.supercore.inflatable.inflatable_utils import (
    pull_and_inflate_object_from_tree,
    push_objects,
)
from flwr.supercore.interceptors.http.runtime_version import RuntimeVersionHttpInterceptor
from flwr.supercore.primitives.asymmetric import public_key_to_bytes
from flwr.supercore.run import Run
from flwr.supernode.fleet_http_client import FleetHttpClient
from flwr.supernode.node_auth_http_interceptor import NodeAuthHttpInterceptor

LEAVE_S = 30.0
HEARTBEAT_S, BEATS = 10.0, 2
"""The SuperLink takes a node for gone that has not been heard for two of these, and only then takes
a new process of the same node. It accepts 10 s at least."""
MOST_CLOCK_S = 60.0
"""A signature holds its time; the SuperLink takes none that is minutes off its own clock."""
MOVING_ON = frozenset({429, 502, 503, 504, 507})
"""HTTP statuses of a server that is starting or ending, or has no room for weights just now."""


class ConnectionLostError(Exception):
    """The centre cannot be reached, or does not take this site; the text says which."""


@dataclass(frozen=True)
class Received:
    """A message and the run that it belongs to."""

    message: Message
    run: Run


class Fleet:
    """A connection to the centre, as one node."""

    def __init__(self, client: FleetHttpClient, key: ec.EllipticCurvePublicKey) -> None:
        """client: signs as the node of that key."""
        self._client = client
        self._public_key = public_key_to_bytes(key)
        self._node = Node()
        self._ended = threading.Event()
        self._heart = threading.Thread(target=self._beat, daemon=True, name="heartbeat")
        self._runs: dict[int, Run] = {}
        self._begun: tuple[str, PushMessagesResponse] | None = None

    def activate(self) -> int:
        """Tell the centre that the node is here; return its number."""
        asked = ActivateNodeRequest(public_key=self._public_key, heartbeat_interval=HEARTBEAT_S)
        self._node = Node(node_id=self._client.ActivateNode(asked).node_id)
        self._heart.start()
        return int(self._node.node_id)

    def receive(self) -> Received | None:
        """Return the next message, whole; None if there is none."""
        pulled = self._client.PullMessages(PullMessagesRequest(node=self._node))
        if not pulled.messages_list:
            return None
        head = message_from_proto(pulled.messages_list[0])
        number = head.metadata.run_id
        if number not in self._runs:
            self._runs = {
                number: run_from_proto(
                    self._client.GetRun(GetRunRequest(node=self._node, run_id=number)).run
                )
            }
        content = pull_and_inflate_object_from_tree(
            pulled.message_object_trees[0],
            make_pull_object_fn_protobuf(self._client.PullObject, self._node, number),
            make_confirm_message_received_fn_protobuf(
                self._client.ConfirmMessageReceived, self._node, number
            ),
            return_type=Message,
        )
        # The identifier is the digest of the message as it was sent; the answer names it.
        content.metadata.__dict__["_message_id"] = head.metadata.message_id
        return Received(content, self._runs[number])

    def send(self, reply: Message, seconds: float) -> None:
        """Hand an answer in. seconds: what the site worked for it.

        Called again after a broken connection it goes on with the same hand-in: the SuperLink
        takes a message once, and would wait for ever for what of it had not arrived.
        """
        reply.metadata.__dict__["_message_id"] = number = reply.object_id
        with no_object_id_recompute():
            if self._begun is None or self._begun[0] != number:
                self._begun = (number, self._announced(reply, seconds))
            pushed = self._begun[1]
            push_objects(
                get_all_nested_objects(reply),
                make_push_object_fn_protobuf(
                    self._client.PushObject, self._node, reply.metadata.run_id, pushed.session_id
                ),
                object_ids_to_push=set(pushed.objects_to_push),
            )
        self._begun = None

    def _announced(self, reply: Message, seconds: float) -> PushMessagesResponse:
        answer: PushMessagesResponse = self._client.PushMessages(
            PushMessagesRequest(
                node=self._node,
                messages_list=[message_to_proto(remove_content_from_message(reply))],
                message_object_trees=[get_object_tree(reply)],
                clientapp_runtime_list=[seconds],
            )
        )
        return answer

    def leave(self) -> None:
        """Tell the centre that the node goes, if it still hears."""
        self._ended.set()
        self._heart.join(LEAVE_S)
        try:
            self._client.DeactivateNode(DeactivateNodeRequest(node_id=self._node.node_id))
        except (httpx.HTTPError, RuntimeError):
            return

    def _beat(self) -> None:
        asked = SendNodeHeartbeatRequest(node=self._node, heartbeat_interval=HEARTBEAT_S)
        while not self._ended.wait(HEARTBEAT_S / BEATS):
            try:
                self._client.SendNodeHeartbeat(asked)
            except (httpx.HTTPError, RuntimeError):
                # The next message will meet the same, and says so.
                continue


@contextmanager
def connected(client: httpx.Client, key: ec.EllipticCurvePrivateKey) -> Iterator[Fleet]:
    """Be the node of a key at the centre while the block runs.

    client: of the centre's address; it shows the site's certificate.

    Raises:
        ConnectionLostError: the centre cannot be reached, or does not take this node.
    """
    signing = NodeAuthHttpInterceptor(key, key.public_key())
    speaks = FleetHttpClient(
        str(client.base_url),
        interceptors=[RuntimeVersionHttpInterceptor(component_name="SuperNode"), signing],
    )
    # One pool of connections for all that goes to the centre; Flower's own forgets one after 5 s.
    speaks.close()
    vars(speaks)["_client"] = client
    try:
        fleet = Fleet(speaks, key.public_key())
        fleet.activate()
        try:
            yield fleet
        finally:
            fleet.leave()
    except httpx.HTTPError as error:
        raise ConnectionLostError(in_words(error, client.base_url.netloc.decode())) from error


def passes(error: httpx.HTTPError) -> bool:
    """Whether the centre may come back by itself with all that it knew."""
    if isinstance(error, httpx.HTTPStatusError):
        return error.response.status_code in MOVING_ON
    return True


def in_words(error: httpx.HTTPError, address: str) -> str:
    """Return what IT needs to know of a failed request."""
    if isinstance(error, httpx.HTTPStatusError):
        status = error.response.status_code
        if status == 403:
            return (
                f"{address} does not admit this certificate: it was revoked, has ended, or was "
                "never admitted"
            )
        if status == 401:
            return f"{address} does not take this site's signature; {_clock(error.response)}"
        if status in MOVING_ON:
            return f"{address} cannot take it just now (HTTP {status}): {_detail(error.response)}"
        return f"{address} answered HTTP {status}: {_detail(error.response)}"
    if isinstance(error, httpx.RemoteProtocolError):
        return (
            f"{address} ended the connection without an answer, as it does where it has revoked "
            f"this site's certificate, or ends itself ({error})"
        )
    if isinstance(error, httpx.ConnectError) and "CERTIFICATE_VERIFY_FAILED" in str(error):
        return f"{address} shows a certificate that this federation's authority did not sign"
    if "CERTIFICATE_EXPIRED" in str(error).upper().replace(" ", "_"):
        return (
            f"{address} says that this site's certificate has ended; ask the centre for a new one "
            "(wardround-server rotate), then wardround-site join"
        )
    return f"{address} cannot be reached ({type(error).__name__}: {error})"


def _clock(response: httpx.Response) -> str:
    """Return how far this machine's clock is off the centre's, as the answer tells."""
    try:
        theirs = parsedate_to_datetime(response.headers["date"])
    except (KeyError, ValueError):
        return "see that this machine's clock is right"
    off_s = (datetime.now(UTC) - theirs).total_seconds()
    if abs(off_s) < MOST_CLOCK_S:
        return "its key is not the one that was admitted"
    way = "ahead of" if off_s > 0 else "behind"
    return f"this machine's clock is {abs(off_s):.0f} s {way} the centre's, set it right"


def _detail(response: httpx.Response) -> str:
    try:
        told: Any = response.json()
        return str(told.get("message") or told.get("detail") or told.get("error"))[:200]
    except (ValueError, AttributeError):
        return "no reason"
