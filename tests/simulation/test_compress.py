from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console

from common.files import read_json
from common.schema import SettingsError
from simulation.compress import FILE, INT8, STUDENT, compress, soft_loss
from simulation.uncertainty import show_uncertainty
from tests.integration.test_every_task import PRIVATE, SMALL_CNN, listed, run

QUIET = Console(quiet=True)


def finished(folder: Path, *settings: str) -> Path:
    (folder / "data").mkdir()
    data = listed(folder / "data", {"label": lambda _, k: ("normal", "pneumonia")[k % 2]})
    run(folder / "run", data, "task=classification", *SMALL_CNN, *settings, label="label")
    return folder / "run"


def test_a_finished_run_stands_beside_its_int8_form_and_its_student(tmp_path: Path) -> None:
    folder = finished(tmp_path)
    compress(folder, ["model.channels=[2]"], QUIET)
    rows = {row["form"]: row for row in read_json(folder / FILE)["rows"]}
    assert list(rows) == ["float32", "int8", "student, float32", "student, int8"]
    final = read_json(folder / "result.json")["final"]["mean"]["auroc"]
    assert rows["float32"]["headline"] == pytest.approx(final, abs=1e-6)
    assert rows["student, float32"]["kilobytes"] < rows["float32"]["kilobytes"]
    assert all(row["milliseconds"] > 0 for row in rows.values())
    assert (folder / INT8).is_file()
    assert (folder / STUDENT).is_file()


def test_a_student_of_a_private_run_is_refused_and_its_int8_form_is_not(tmp_path: Path) -> None:
    folder = finished(tmp_path, *PRIVATE)
    with pytest.raises(SettingsError, match="without privacy"):
        compress(folder, ["model.channels=[2]"], QUIET)
    with pytest.raises(SettingsError, match="is no setting of a student's network"):
        compress(folder, ["training.lr=1"], QUIET)
    compress(folder, [], QUIET)
    assert len(read_json(folder / FILE)["rows"]) == 2
    before = (folder / INT8).read_bytes()
    for place, file in enumerate(sorted((tmp_path / "data").glob("*.png"))):
        pixels = np.random.default_rng(place).integers(0, 250, (16, 16), dtype=np.uint8)
        Image.fromarray(pixels).save(file)
    compress(folder, [], QUIET)
    # Not even the range of one patient's image is in the file.
    assert (folder / INT8).read_bytes() == before


def test_sites_that_only_test_teach_no_student_and_set_no_range(tmp_path: Path) -> None:
    folder = finished(tmp_path, "strategy.tested=[south]")
    compress(folder, ["model.channels=[2]"], QUIET)
    before = [(folder / name).read_bytes() for name in (INT8, STUDENT)]
    for place, file in enumerate(sorted((tmp_path / "data").glob("south*.png"))):
        pixels = np.random.default_rng(place).integers(0, 250, (16, 16), dtype=np.uint8)
        Image.fromarray(pixels).save(file)
    compress(folder, ["model.channels=[2]"], QUIET)
    assert [(folder / name).read_bytes() for name in (INT8, STUDENT)] == before


def test_sites_answer_by_the_threshold_that_they_chose(tmp_path: Path) -> None:
    chosen = ("task.threshold_share=0.4", "task.headline=sensitivity")
    folder = finished(tmp_path, *chosen)
    compress(folder, [], QUIET)
    final = read_json(folder / "result.json")["final"]["mean"]["sensitivity"]
    assert read_json(folder / FILE)["rows"][0]["headline"] == pytest.approx(final, abs=1e-6)


def test_a_model_of_which_parts_stayed_at_the_sites_is_refused(tmp_path: Path) -> None:
    folder = finished(tmp_path, "model.local=[head]")
    for of in (lambda: compress(folder, [], QUIET), lambda: show_uncertainty(folder, QUIET)):
        with pytest.raises(SettingsError, match="stayed at the sites"):
            of()


def test_the_soft_loss_is_least_where_the_student_says_what_the_teacher_does() -> None:
    logits = torch.randn(5, 3, generator=torch.Generator().manual_seed(0)).requires_grad_()
    loss = soft_loss(logits, logits.detach().softmax(1))
    (gradient,) = torch.autograd.grad(loss, logits)
    torch.testing.assert_close(gradient, torch.zeros_like(gradient), rtol=0, atol=1e-6)


def test_a_student_of_one_output_learns_what_one_of_two_would() -> None:
    z = torch.randn(2, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    answers = torch.rand(2, 2, 4, 4, generator=torch.Generator().manual_seed(1)).softmax(1)
    both = torch.cat([torch.zeros_like(z), z], 1)
    torch.testing.assert_close(soft_loss(z, answers), soft_loss(both, answers))
