"""The file tables of docs/code-map.md, written from the first sentence of every module.

python docs/code_map.py
"""

import ast
from pathlib import Path

ROOT = Path(__file__).parents[1]
MAP = ROOT / "docs" / "code-map.md"
BEGIN, END = "## Files\n", "### The rest\n"
PACKAGES = {
    "common": "no network, used by all",
    "server": "the coordinating centre",
    "client": "a hospital",
    "simulation": "many hospitals on one machine",
}
GENERATED = "pb2"


def file_tables() -> str:
    """Return a table a package: each module, and the first paragraph of its docstring."""
    parts = []
    for package, what in PACKAGES.items():
        head = f"\n### {package}: {what}\n\n| file | what it holds |\n|---|---|\n"
        parts.append(head + "".join(_row(package, path) for path in _modules(package)))
    return "".join(parts)


def with_tables(page: str) -> str:
    """Return the page with its file tables made anew."""
    before, rest = page.split(BEGIN, 1)
    return f"{before}{BEGIN}{file_tables()}\n{END}{rest.split(END, 1)[1]}"


def _modules(package: str) -> list[Path]:
    found = [p for p in (ROOT / package).rglob("*.py") if not p.name.startswith("__")]
    return sorted((p for p in found if GENERATED not in p.name), key=lambda p: (len(p.parts), p))


def _row(package: str, path: Path) -> str:
    told = ast.get_docstring(ast.parse(path.read_text())) or ""
    first = " ".join(told.split("\n\n")[0].split()).rstrip(".")
    return f"| `{path.relative_to(ROOT / package)}` | {first} |\n"


if __name__ == "__main__":
    MAP.write_text(with_tables(MAP.read_text()))
