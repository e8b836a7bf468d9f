from pathlib import Path

import pytest

from common.config import load_study
from simulation.engines import estimate
from simulation.engines.estimate import FEW_IMAGES, training_s
from tests.builders import PICTURES, pictures_site


@pytest.fixture
def second_an_image(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(estimate, "_image_s", lambda study: 1.0)


@pytest.mark.usefixtures("second_an_image")
def test_a_study_takes_its_rounds_times_sites_times_steps_times_images(tmp_path: Path) -> None:
    sites = [pictures_site(tmp_path / name, train=8, test=4) for name in "ab"]
    given = [*PICTURES, "training.batch_size=4", "rounds=300"]
    asked = load_study([*given, "training.local_steps=3"])
    assert training_s(asked, sites) == 300 * 2 * 3 * 4
    # Two epochs of eight images in batches of four.
    epochs = load_study([*given, "training.local_steps=null", "training.local_epochs=2"])
    assert training_s(epochs, sites) == 300 * 2 * 4 * 4
    half = load_study([*given, "training.local_steps=3", "strategy.fraction=0.5"])
    assert training_s(half, sites) == 300 * 1 * 3 * 4


@pytest.mark.usefixtures("second_an_image")
def test_next_to_nothing_is_not_estimated(tmp_path: Path) -> None:
    sites = [pictures_site(tmp_path / "a", train=8, test=4)]
    short = load_study([*PICTURES, "training.local_steps=1", "training.batch_size=4", "rounds=2"])
    assert FEW_IMAGES > 2 * 4
    assert training_s(short, sites) == 0.0
    assert training_s(short, []) == 0.0


@pytest.mark.usefixtures("second_an_image")
def test_a_site_whose_list_is_broken_stops_no_run_here(tmp_path: Path) -> None:
    good, bad = (pictures_site(tmp_path / name, train=8, test=4) for name in "ab")
    study = load_study([*PICTURES, "training.batch_size=4", "rounds=300"])
    before = training_s(study, [good, good])
    for manifest in bad.parent.glob("*.csv"):
        manifest.write_text("image,patient\n,\n")
    assert training_s(study, [good, bad]) == before > 0
    assert training_s(study, [bad]) == 0.0


def test_an_image_of_a_larger_network_takes_longer() -> None:
    few, many = (
        load_study([*PICTURES, f"model.channels={channels}", "model.norm_groups=2"])
        for channels in ([4, 8], [64, 128, 256])
    )
    assert 0 < estimate._image_s(few) < estimate._image_s(many)
