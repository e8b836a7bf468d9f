import ast
import re
import runpy
import shlex
from importlib.util import find_spec
from pathlib import Path

import pytest

from client.privacy.gate import CODES
from common.config import load_study
from common.error_codes import code_of_class

ROOT = Path(__file__).parents[1]
PAGES = [
    *ROOT.glob("*.md"),
    *(page for page in (ROOT / "docs").rglob("*.md") if "_build" not in page.parts),
]


def test_the_code_map_is_what_the_modules_say() -> None:
    made = runpy.run_path(str(ROOT / "docs" / "code_map.py"))
    page = made["MAP"].read_text()
    assert made["with_tables"](page) == page, "run: python docs/code_map.py"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_to_a_file_and_nothing_is_left_to_fill_in(page: Path) -> None:
    text = page.read_text()
    assert not re.findall(r"@\w+@|<!--", text)
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", text):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_module_that_a_page_runs_is_there(page: Path) -> None:
    for module in re.findall(r"python -m ((?:simulation|server|client)[\w.]*\w)", page.read_text()):
        assert find_spec(module) is not None, module


def test_every_command_of_the_readme_composes() -> None:
    text = (ROOT / "README.md").read_text()
    commands = re.findall(
        r"`wardround-sim (?:--multirun |baselines |epsilons |audit )?(experiment=[^`]*)`", text
    )
    assert len(commands) > 10
    for command in commands:
        overrides = [word for word in shlex.split(command) if "=" in word]
        # A sweep's values are composed one at a time.
        assert load_study([re.sub(r"=(\d),.*", r"=\1", word) for word in overrides])


def _codes_of_errors() -> set[str]:
    packages = ("common", "client", "server", "simulation")
    trees = [ast.parse(path.read_text()) for p in packages for path in (ROOT / p).rglob("*.py")]
    names = [
        node.name for tree in trees for node in ast.walk(tree) if isinstance(node, ast.ClassDef)
    ]
    return {code_of_class(name) for name in names if name.endswith("Error")} | {"value", "system"}


def test_every_error_has_a_code_that_is_explained() -> None:
    table = (ROOT / "docs" / "errors.md").read_text().split("## What a site refuses with")[0]
    assert set(re.findall(r"^\| `([\w-]+)` \|", table, re.MULTILINE)) == _codes_of_errors()


def test_every_code_of_a_refusal_is_explained() -> None:
    table = (ROOT / "docs" / "errors.md").read_text().split("## What a site refuses with")[1]
    explained = set(re.findall(r"^\| `([\w-]+)` \|", table, re.MULTILINE))
    assert explained == {*CODES, "error"}
