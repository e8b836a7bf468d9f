"""Runs to look at: a folder of them, and a server of a page in this process."""

from pathlib import Path

import pytest
from starlette.applications import Starlette

from common.files import write_json
from common.pages.serving import asset_routes
from server.page.app import run_pages
from tests.builders import numbers_app
from tests.server.test_run import PATIENTS, run


def begun(folder: Path) -> Path:
    """Make the folder of a run."""
    write_json(folder / "run.json", {"overrides": []})
    return folder


@pytest.fixture(scope="package")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one finished run; beside it lies one that no name may lead to."""
    folder = tmp_path_factory.mktemp("page") / "runs"
    outside = begun(folder.parent / "outside")
    (outside / "report.html").write_text("outside")
    run(begun(folder / "done"), numbers_app(PATIENTS), "rounds=3")
    return folder


def app_of(folder: Path) -> Starlette:
    """Return the pages of a folder of runs, without a guard."""
    return Starlette(routes=[*run_pages(folder), *asset_routes()])
