"""Hospitals under review, and a person who reviews."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from starlette.testclient import TestClient

from client.prediction.passes import Passes
from client.review.decisions import Log
from client.review.page import Review, app_of
from client.review.ranking import ranked
from client.work import rows_at
from common.finished import load_finished
from tests.builders import PICTURES, SLICES, pictures_site, volumes_site
from tests.finished import finished_run

Made = Callable[[str], Review]


@pytest.fixture
def reviewed(tmp_path: Path) -> Made:
    """Make a hospital of volumes or of pictures, whose images were looked at."""

    def made(kind: str) -> Review:
        volumes = kind == "volumes"
        site = (volumes_site if volumes else pictures_site)(tmp_path / "site")
        finished = load_finished(finished_run(tmp_path / "run", *(SLICES if volumes else PICTURES)))
        passes = Passes(
            network=finished.network,
            study=finished.study,
            task=finished.task,
            device=torch.device("cpu"),
        )
        manifest = site.parent / "manifest.csv"
        return Review(
            site="st-a",
            manifest=manifest,
            passes=passes,
            cases=ranked(rows_at(manifest), passes),
            log=Log(site.parent / "state", finished.digest),
            author="dr-lee",
        )

    return made


@pytest.fixture
def browser() -> Callable[[Review], TestClient]:
    """Open the pages of a review."""
    return lambda review: TestClient(app_of(review), base_url="http://127.0.0.1:8000")
