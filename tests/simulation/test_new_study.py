"""A study folder of one's own: what is written composes, and it runs once the images are there."""

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from common.command import expanded
from common.config import load_study, travelling
from common.schema import SettingsError
from simulation.new_study import Images, Kind, make_study
from simulation.run import composed
from simulation.show import carried_out

TINY = (
    "rounds=1",
    "data.size=[16,16]",
    "training.batch_size=2",
    "data.held_out=0.4",
    "simulation.engine=inprocess",
)


def settings(folder: Path) -> list[str]:
    return expanded([f"@{folder / 'settings.txt'}"])


def write_images(data: Path) -> None:
    """Write what the manifest's examples name: noise with a square, and the square as the mask."""
    rng = np.random.default_rng(0)
    with (data / "manifest.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 6
    for row in rows:
        mask = np.zeros((16, 16), np.uint8)
        mask[4:10, 5:11] = 1
        image = rng.integers(0, 100, size=mask.shape, dtype=np.uint8) + 100 * mask
        (data / row["image"]).parent.mkdir(exist_ok=True)
        Image.fromarray(image).save(data / row["image"])
        if "mask" in row:
            Image.fromarray(mask).save(data / row["mask"])


@pytest.mark.parametrize("task", Kind)
@pytest.mark.parametrize("images", Images)
def test_every_kind_of_study_composes_as_it_is_written(
    tmp_path: Path, task: Kind, images: Images
) -> None:
    make_study(tmp_path / "mine", task, images)
    study = load_study(travelling(settings(tmp_path / "mine")))
    assert (study.name, study.task.name) == ("mine", task.value)
    assert study.data.spatial_dims == (3 if images is Images.VOLUMES else 2)


@pytest.mark.parametrize("task", Kind)
def test_a_study_runs_once_its_images_are_there(tmp_path: Path, task: Kind) -> None:
    make_study(tmp_path / "mine", task, Images.PICTURES)
    write_images(tmp_path / "mine" / "data")
    run = composed(tmp_path / "run", [*settings(tmp_path / "mine"), *TINY])
    result = carried_out(run, False, Console(quiet=True))
    assert result["status"] == "completed", result["reason"]
    assert {site: of["patients_train"] for site, of in result["sites"].items()} == {
        "north": 2,
        "south": 2,
    }


def test_a_folder_that_is_there_or_has_no_name_for_a_study_is_refused(tmp_path: Path) -> None:
    make_study(tmp_path / "mine", Kind.SEGMENTATION, Images.PICTURES)
    with pytest.raises(SettingsError, match="is there already"):
        make_study(tmp_path / "mine", Kind.SEGMENTATION, Images.PICTURES)
    with pytest.raises(SettingsError, match="not allowed as a study's name"):
        make_study(tmp_path / "My study", Kind.SEGMENTATION, Images.PICTURES)
