"""A site's own page: worst patients first, images in it, and nobody else's to read."""

import re
import stat
from pathlib import Path

import torch

from client.page import FOLDER, worst_first
from client.trainer import Trainer, trainer_at
from common.config import study_digest
from common.tasks.registry import build_task
from common.tasks.task import Sums
from tests.builders import (
    PICTURES,
    SLICES,
    initial_weights,
    pictures_site,
    request_for,
    study_from,
)


def page_of(trainer: Trainer, *overrides: str, round_number: int = 2) -> Path:
    request = request_for(*overrides, round_number=round_number, evaluate=True)
    trainer.evaluate(request, initial_weights(*overrides))
    digest = study_digest(study_from(*overrides))
    return trainer.site.state_path / FOLDER / f"{digest[:16]}.html"


def test_after_the_last_round_a_site_has_a_page_that_is_its_owners_alone(tmp_path: Path) -> None:
    trainer = trainer_at(pictures_site(tmp_path / "a", train=8, test=6))
    early = page_of(trainer, *PICTURES, round_number=1)
    assert not early.exists()
    page = page_of(trainer, *PICTURES)
    assert stat.S_IMODE(page.stat().st_mode) == 0o600
    text = page.read_text()
    assert text.count("<figure>") == 6
    assert "truth " in text
    assert "This page holds images of patients" in text
    assert not re.search(r"""(?:src|href)=["'](?!data:)""", text)
    assert "<script" not in text


def test_patients_stand_worst_first_and_those_without_a_value_last() -> None:
    study = study_from(*SLICES)
    task = build_task(study.task)
    truth = torch.zeros(1, 16, 16, dtype=torch.int64)
    truth[0, :4] = 1
    right = torch.stack([(truth[0] == 0).float(), (truth[0] == 1).float()])
    half = right.clone()
    half[:, 2:4] = half.flip(0)[:, 2:4]
    nothing = torch.zeros_like(truth)
    rows = {
        "good": task.patient_sums([task.measure(right, truth, (1.0, 1.0))]),
        "half": task.patient_sums([task.measure(half, truth, (1.0, 1.0))]),
        "wrong": task.patient_sums([task.measure(right.flip(0), truth, (1.0, 1.0))]),
        "healthy": task.patient_sums(
            [task.measure(torch.stack([torch.ones(16, 16), torch.zeros(16, 16)]), nothing, (1, 1))]
        ),
    }
    order = [line.patient for line in worst_first(rows, task)]
    assert order[:2] == ["wrong", "half"]


def test_of_answers_an_image_the_worst_are_told_by_what_every_patient_has() -> None:
    labels = ("task=multilabel", "model=cnn", "data=pictures")
    task = build_task(study_from(*labels).task)

    def sums(*images: tuple[list[float], list[int]]) -> Sums:
        measured = [task.measure(torch.tensor(p), torch.tensor(t), ()) for p, t in images]
        return task.patient_sums(measured)

    rows = {
        "right": sums(([0.9, 0.1], [1, 0]), ([0.1, 0.9], [0, 1])),
        "wrong": sums(([0.99, 0.01], [0, 1])),
    }
    # One image has no ROC area, and stands first all the same.
    assert [line.patient for line in worst_first(rows, task)] == ["wrong", "right"]


def test_a_page_that_cannot_be_written_costs_nobody_the_figures(tmp_path: Path) -> None:
    trainer = trainer_at(pictures_site(tmp_path / "a", train=8, test=6))
    trainer.site.state_path.mkdir(parents=True, exist_ok=True)
    (trainer.site.state_path / FOLDER).write_text("in the way")
    request = request_for(*PICTURES, round_number=2, evaluate=True)
    body = trainer.evaluate(request, initial_weights(*PICTURES)).body
    assert "estimates" in vars(body)
    assert vars(body)["estimates"]
