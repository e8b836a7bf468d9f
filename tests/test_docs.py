import ast
import re
import runpy
from importlib.util import find_spec
from pathlib import Path

import pytest

from client.privacy.gate import CODES
from common.error_codes import code_of_class
from configs import CONFIG_FOLDER
from tests.documented import PAGES, ROOT


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


ELSEWHERE = {"method/contrastive.yaml", "method/fixmatch.yaml", "evaluation/none.yaml"}
"""Choices that are no methods against domain shift."""


def test_every_method_against_shift_has_its_file_and_the_test_of_its_law() -> None:
    page = (ROOT / "docs" / "shift.md").read_text()
    rows = re.findall(
        r"^\| [^|]+ \| `configs/([\w/.]+)` \| `([\w/.]+)::(\w+)` \|$", page, re.MULTILINE
    )
    groups = ("strategy", "method", "evaluation")
    files = [path for group in groups for path in (CONFIG_FOLDER / group).glob("*.yaml")]
    named = {str(path.relative_to(CONFIG_FOLDER)) for path in files}
    assert sorted(config for config, _, _ in rows) == sorted(named - ELSEWHERE)
    for _, module, name in rows:
        functions = [
            n.name
            for n in ast.parse((ROOT / module).read_text()).body
            if isinstance(n, ast.FunctionDef)
        ]
        assert name in functions, f"{module}::{name}"


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
