"""The docs as a site, by Sphinx: `make docs` builds docs/_build/html, which needs no network."""

import subprocess
import sys
from pathlib import Path
from typing import Any

project = "wardround"
author = "The wardround authors"
extensions = ["myst_parser", "sphinx.ext.autodoc"]
exclude_patterns = ["_build", "tables"]
html_theme = "furo"
html_title = project
html_copy_source = False
html_show_sphinx = False
myst_heading_anchors = 4
myst_enable_extensions = ["colon_fence"]
autodoc_member_order = "bysource"
autodoc_typehints = "description"
# The docs say what a type is in words; the names of other libraries lead nowhere here.
autodoc_class_signature = "separated"

GENERATED = Path(__file__).parent / "_build" / "generated"
COMMANDS = {"wardround-site": "client.cli", "wardround-server": "server.cli"}
"""The command lines that typer describes, by name; wardround-sim tells of itself by --help."""


def write_commands(app: object) -> None:
    """Write what each command says of itself where docs/reference/commands.md includes it."""
    GENERATED.mkdir(parents=True, exist_ok=True)
    for name, module in COMMANDS.items():
        made = GENERATED / f"{name}.md"
        asked = [module, "utils", "docs", "--name", name, "--output", str(made)]
        subprocess.run([sys.executable, "-m", "typer", *asked], check=True, stdout=sys.stderr)
    asked = [sys.executable, "-m", "simulation.cli", "--help"]
    told = subprocess.run(asked, check=True, capture_output=True, text=True).stdout
    (GENERATED / "wardround-sim.txt").write_text(told)


def as_plain_text(
    app: object, what: str, name: str, thing: object, options: object, lines: list[str]
) -> None:
    """Keep a docstring's stars, bars and underscores: ours are plain text, not markup."""
    for number, line in enumerate(lines):
        for mark in "\\*|`_":
            line = line.replace(mark, f"\\{mark}")
        lines[number] = line


def setup(app: Any) -> None:  # noqa: ANN401 - Sphinx is not there where mypy runs
    """Connect the two above."""
    app.connect("builder-inited", write_commands)
    app.connect("autodoc-process-docstring", as_plain_text)
