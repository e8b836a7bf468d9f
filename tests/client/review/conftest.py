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
from client.site_data import rows_at
from common.export.provenance import sha256_of
from common.finished import load_finished
from tests.builders import PICTURES, SLICES, pictures_site, volumes_site
from tests.finished import finished_run

LABELS = (
    *PICTURES,
    "task=multilabel",
    "task.classes=[mass,fluid]",
    "task.out_channels=2",
    "task.headline=auroc",
)
Made = Callable[[str], Review]


@pytest.fixture
def reviewed(tmp_path: Path) -> Made:
    """Make a hospital of volumes, pictures or labels, whose images were looked at."""

    def made(kind: str) -> Review:
        volumes = kind == "volumes"
        overrides = {"volumes": SLICES, "pictures": PICTURES, "labels": LABELS}[kind]
        site = (volumes_site if volumes else pictures_site)(tmp_path / "site")
        finished = load_finished(finished_run(tmp_path / "run", *overrides))
        passes = Passes(
            network=finished.network,
            study=finished.study,
            task=finished.task,
            device=torch.device("cpu"),
        )
        manifest = site.parent / "manifest.csv"
        if kind == "labels":
            text = manifest.read_text().replace("normal", "none")
            manifest.write_text(text.replace("pneumonia", "mass|fluid"))
        return Review(
            site="st-a",
            manifest=manifest,
            passes=passes,
            cases=ranked(rows_at(manifest), passes),
            log=Log(site.parent / "state", finished.digest, sha256_of(finished.weights)),
            author="dr-lee",
        )

    return made


@pytest.fixture
def browser() -> Callable[[Review], TestClient]:
    """Open the pages of a review."""
    return lambda review: TestClient(app_of(review), base_url="http://127.0.0.1:8000")
