"""What docs/deploy.md and docs/threats.md say is in the code."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DEPLOY = (ROOT / "docs" / "deploy.md").read_text()
THREATS = (ROOT / "docs" / "threats.md").read_text()


def _texts() -> str:
    """Return every string of the site, the centre and what they share, one a line."""
    found = []
    for package in ("client", "common", "server"):
        for path in (ROOT / package).rglob("*.py"):
            tree = ast.parse(path.read_text())
            found += [
                node.value
                for node in ast.walk(tree)
                if isinstance(node, ast.Constant) and isinstance(node.value, str)
            ]
    return "\n".join(found)


def test_every_message_of_the_troubleshooting_table_is_one_of_the_code() -> None:
    table = DEPLOY.partition("## When something is wrong")[2]
    messages = re.findall(r"^\| `([^`]+)`", table, re.MULTILINE)
    texts = _texts()
    assert len(messages) > 15
    assert [message for message in messages if message not in texts] == []


def test_every_metric_of_an_alert_is_one_of_the_code() -> None:
    metrics = set(re.findall(r"wardround_\w+(?=[{\[) ]|`)", DEPLOY))
    texts = _texts()
    assert len(metrics) > 3
    assert [metric for metric in sorted(metrics) if metric not in texts] == []


@pytest.mark.parametrize("named", sorted(set(re.findall(r"`(\S+\.py::\w+)`", THREATS))))
def test_every_test_that_shows_something_exists(named: str) -> None:
    file, _, test = named.partition("::")
    assert f"def {test}(" in (ROOT / "tests" / file).read_text()


def test_every_verb_of_the_pages_is_one_of_the_commands() -> None:
    from client.cli import app as site
    from server.cli import app as server

    for name, app in (("wardround-site", site), ("wardround-server", server)):
        verbs = {
            each.name or getattr(each.callback, "__name__", "") for each in app.registered_commands
        }
        verbs |= {str(group.name) for group in app.registered_groups}
        told = set(re.findall(rf"(?:^|[`/ -]){name} ([a-z]+)", DEPLOY, re.MULTILINE))
        assert told <= verbs, name
