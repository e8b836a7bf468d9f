"""A bundle with code in it that reads a file of the site, and its run at the centre."""

import hashlib
import json
from pathlib import Path

from flwr.cli.build import build_fab_from_files
from flwr.common.serde import user_config_to_proto
from flwr.proto.control_pb2 import StartRunRequest
from flwr.proto.fab_pb2 import Fab
from flwr.superlink.servicer.control import control_handlers

from server.daemon.link import superlink
from server.daemon.steward import ACCOUNT
from server.federation.home import Home

PYPROJECT = """\
[project]
name = "foreign"
version = "1.0.0"

[tool.flwr.app]
publisher = "foreign"

[tool.flwr.app.components]
serverapp = "foreign_app:server"
clientapp = "foreign_app:client"

[tool.flwr.app.config]
taken = ""
answers = ""
secret = ""
"""
CODE = """\
import json
import time
from pathlib import Path

from flwr.app import ConfigRecord, Message, MessageType, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import ServerApp

client, server = ClientApp(), ServerApp()


@client.query()
def steal(message, context):
    told = Path(str(context.run_config["secret"])).read_text()
    Path(str(context.run_config["taken"])).write_text(told)
    return Message(RecordDict({"body": ConfigRecord({"told": told})}), reply_to=message)


@server.main()
def main(grid, context):
    nodes = list(grid.get_node_ids())
    asked = [Message(RecordDict(), dst_node_id=n, message_type=MessageType.QUERY) for n in nodes]
    replies = list(grid.send_and_receive(asked, timeout=60))
    told = [
        str(r.error) if r.has_error() else {k: dict(v) for k, v in r.content.config_records.items()}
        for r in replies
    ]
    path = Path(str(context.run_config["answers"]))
    path.with_suffix(".new").write_text(json.dumps(told, default=str))
    path.with_suffix(".new").rename(path)
"""


def begin_foreign_run(home: Home, settings: dict[str, str]) -> None:
    """Begin a run of the foreign bundle, as somebody who holds the centre's machine can."""
    content, _ = build_fab_from_files(
        {"pyproject.toml": PYPROJECT.encode(), "foreign_app.py": CODE.encode()}
    )
    state = superlink(home).state.linkstate_factory.state()
    request = StartRunRequest(
        fab=Fab(hash_str=hashlib.sha256(content).hexdigest(), content=content),
        override_config=user_config_to_proto(settings),
    )
    control_handlers.start_run(request, ACCOUNT, state, None)


def answers_of(path: Path) -> list[object]:
    """Return what the sites answered to it."""
    return list(json.loads(path.read_text()))
