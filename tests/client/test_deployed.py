"""A model that fails on new patients is told so, at the site; one that does not, is not."""

from collections.abc import Sequence
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image
from typer.testing import CliRunner

from client.cli import app
from client.deployed import figures_since
from client.manifest import Row, read_manifest
from client.own_models import OWN_MODEL
from client.trainer import trainer_at
from common.finished import Finished, load_finished
from common.tensor_files import read_tensors, write_tensors
from tests.builders import PICTURES, after_the_rounds, initial_weights, write_site

FIRST, SINCE = date(2026, 1, 1), date(2026, 3, 1)
STUDY = (*PICTURES, "evaluation=shift", "training.lr=0.01", "training.local_epochs=20", "seed=1")
OLD, NEW = 48, 16


def picture(path: Path, sick: bool, faint: bool, draws: np.random.Generator) -> None:
    """Write a picture; the sick are brighter in the middle, to a faint scanner darker there."""
    pixels = draws.integers(0, 120, size=(16, 16), dtype=np.uint8)
    bright = sick != faint
    pixels[4:12, 4:12] += 100 * bright
    Image.fromarray(pixels).save(path)


def site_of(folder: Path, faint: bool, labelled: bool = True) -> Path:
    """Write a site whose patients from a day on are seen by another scanner, if a faint one."""
    folder.mkdir(parents=True)
    draws, rows = np.random.default_rng(5), []
    for number in range(OLD + NEW):
        new, sick = number >= OLD, bool(number % 2)
        picture(folder / f"{number}.png", sick, faint and new, draws)
        day = (SINCE if new else FIRST) + timedelta(days=number % 20)
        label = ("normal", "pneumonia")[sick] if labelled or not new else ""
        split = "test" if number % 3 == 0 else "train"
        row = {"image": f"{number}.png", "label": label, "patient": f"p{number}"}
        rows.append({**row, "split": split, "date": str(day)})
    return write_site(folder, "st-a", rows)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that a site trained, as a file that it kept."""
    folder = tmp_path_factory.mktemp("trained") / "a"
    trainer = trainer_at(site_of(folder, faint=False))
    trainer.evaluate(after_the_rounds(*STUDY), initial_weights(*STUDY))
    state, _ = read_tensors(trainer.site.state_path / OWN_MODEL)
    path = folder / "kept.safetensors"
    write_tensors(path, state, {"overrides": list(STUDY)})
    return path


def told(folder: Path, kept: Path, faint: bool) -> tuple[Finished, Sequence[Row]]:
    site_of(folder, faint)
    return load_finished(kept), read_manifest(folder / "manifest.csv")


def test_a_model_that_fails_on_new_patients_is_worse_and_its_calibration_too(
    finished: Path, tmp_path: Path
) -> None:
    model, rows = told(tmp_path / "b", finished, faint=True)
    figures = {of.name: of for of in figures_since(rows, model, SINCE)}
    assert set(figures) == {"auroc", "ece"}
    auroc = figures["auroc"]
    assert (auroc.before.n, auroc.after.n) == (16, NEW)
    assert auroc.before.value is not None
    assert auroc.after.value is not None
    assert auroc.before.value > 0.9
    assert auroc.after.value < 0.1
    assert auroc.change.value == pytest.approx(auroc.after.value - auroc.before.value)
    assert auroc.worse
    assert figures["ece"].worse


def test_a_model_that_does_as_well_is_not_worse(finished: Path, tmp_path: Path) -> None:
    model, rows = told(tmp_path / "b", finished, faint=False)
    assert not any(of.worse for of in figures_since(rows, model, SINCE))


def test_the_command_says_what_is_worse_and_how_many_patients_it_knows_it_of(
    finished: Path, tmp_path: Path
) -> None:
    site = site_of(tmp_path / "b", faint=True)
    words = ["watch", "--since", str(SINCE), "--model", str(finished), "--site", str(site)]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 3
    assert "on 16 patients with labels from 2026-03-01 on" in done.stdout.replace("\n", " ")
    assert "WORSE: the auroc" in done.stdout


def test_without_labels_nothing_is_said_of_how_well_it_does(finished: Path, tmp_path: Path) -> None:
    site = site_of(tmp_path / "b", faint=False, labelled=False)
    rows = read_manifest(tmp_path / "b" / "manifest.csv")
    assert figures_since(rows, load_finished(finished), SINCE) == []
    words = ["watch", "--since", str(SINCE), "--model", str(finished), "--site", str(site)]
    done = CliRunner().invoke(app, words)
    assert "has a label to try the model on" in done.stdout


def test_a_study_is_named_once(tmp_path: Path) -> None:
    site = tmp_path / "site.yaml"
    site.write_text(yaml.safe_dump({"name": "st-a", "manifest": "m.csv"}))
    done = CliRunner().invoke(app, ["watch", "--since", "2026-03-01", "--site", str(site)])
    assert "give its settings (experiment=...) or --model" in str(done.exception)
