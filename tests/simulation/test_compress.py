from pathlib import Path

import pytest
import torch
from rich.console import Console

from common.files import read_json
from common.schema import SettingsError
from simulation.compress import FILE, INT8, STUDENT, compress, soft_loss
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


def test_the_soft_loss_is_least_where_the_student_says_what_the_teacher_does() -> None:
    logits = torch.randn(5, 3, generator=torch.Generator().manual_seed(0)).requires_grad_()
    loss = soft_loss(logits, logits.detach().softmax(1))
    (gradient,) = torch.autograd.grad(loss, logits)
    torch.testing.assert_close(gradient, torch.zeros_like(gradient), rtol=0, atol=1e-6)
