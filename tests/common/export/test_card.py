"""A card tells what the run told, and what nobody knows it says so."""

from pathlib import Path
from typing import Any

import pytest

from common.export.card import Said, card_of, page_of
from common.finished import load_finished
from tests.builders import PICTURES, SLICES
from tests.finished import finished_run


def result() -> dict[str, Any]:
    def estimate(value: float) -> dict[str, Any]:
        return {"value": value, "low": value - 0.1, "high": value + 0.1, "n": 9}

    sites = {"north": {"auroc": estimate(0.8)}, "south": {"auroc": estimate(0.6)}}
    return {
        "status": "partial",
        "reason": "south: missing in round 2",
        "metrics": {"auroc": {"meaning": "area", "higher_is_better": True}},
        "sites": {
            site: {"patients_train": 30, "patients_held_out": 9, "images_train": 40}
            for site in sites
        },
        "rounds": [{"round": 1, "participants": ["north"]}],
        "final": {
            "mean": {"auroc": 0.7},
            "worst": {"auroc": 0.6},
            "worst_site": {"auroc": "south"},
            "sites": sites,
        },
        "privacy": {"north": {"epsilon": 3.25, "delta": 0.01}},
        "software": {"torch": "2"},
    }


def test_the_card_has_sites_intervals_privacy_and_failures(tmp_path: Path) -> None:
    private = ("privacy.mechanism=dp_sgd", "privacy.noise_multiplier=1.0")
    mirrored = "task.mirrored=true"
    finished = load_finished(finished_run(tmp_path, *PICTURES, *private, mirrored, **result()))
    card = card_of(finished, Said(known_failures=["on children"]))
    assert card["results"]["sites"]["south"]["auroc"]["low"] == 0.5
    assert card["sites"]["north"]["patients_train"] == 30
    assert card["participants"] == ["north"]
    assert card["privacy"]["spent"]["north"]["epsilon"] == 3.25
    assert card["known_failures"][0] == "on children"
    told = " ".join(card["known_failures"])
    for words in (
        "missing in round 2",
        "0.600 at south",
        "no subgroup",
        "an exported form looks once",
    ):
        assert words in told
    page = page_of(card)
    for words in ("0.500 to 0.700", "3.250", "on children", finished.digest):
        assert words in page


def test_the_use_is_the_settings_or_what_a_person_says(tmp_path: Path) -> None:
    finished = load_finished(finished_run(tmp_path, *SLICES, "data.spacing_mm=[2,3]"))
    of_settings = card_of(finished, Said())["intended_use"]
    assert "segmentation of lesion in grey pictures or slices of 16 x 16 voxels at 2 x 3 mm" in (
        of_settings
    )
    assert card_of(finished, Said(intended_use="mice"))["intended_use"] == "mice"


@pytest.mark.parametrize("private", [False, True])
def test_whether_it_was_trained_with_privacy_is_said(tmp_path: Path, private: bool) -> None:
    mechanism = ("privacy.mechanism=dp_sgd", "privacy.noise_multiplier=1.0") if private else ()
    finished = load_finished(finished_run(tmp_path, *PICTURES, *mechanism))
    page = page_of(card_of(finished, Said()))
    assert ("Trained without differential privacy." in page) is not private


def test_words_of_a_person_and_a_site_are_no_markup(tmp_path: Path) -> None:
    finished = load_finished(finished_run(tmp_path, *PICTURES))
    page = page_of(card_of(finished, Said(intended_use="<script>alert(1)</script>")))
    assert "<script" not in page
