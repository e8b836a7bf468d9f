"""A hospital that has not joined is told what it may expect, from its images alone."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from client.cli_expected import lines_of
from client.cohort import load_cohort
from client.expected import LEAST_PATIENTS, expected_at, profile_at
from client.manifest import read_manifest
from client.profile import profile_of, rows_of
from common.config import canonical, study_digest
from common.contract import Profile
from common.files import read_json, write_json
from common.finished import RESULT
from common.models.registry import build_model
from common.newcomer import MEASURE
from common.schema import SettingsError
from common.tasks.task import Metric
from server.evaluation.prediction import far_from_others, told_by_profiles
from simulation.config import named_scanner
from simulation.hospitals import Hospital, write_hospital
from tests.builders import pictures_site, study_from

STUDY = study_from("experiment=virtual_mri", "evaluation=shift")
DICE = Metric(True, "", "overlap")
SITES = ("flair_3t", "flair_3t_fast", "flair_1p5t", "flair_3t")
"""The scanners of the study's four sites."""
SLOPE = 0.5
"""By which the model of this study is worse, a unit of distance."""


def manifest_of(folder: Path, name: str, scanner: str, patients: int = 14) -> Path:
    hospital = Hospital(name=name, scanner=named_scanner(scanner), patients=patients)
    return write_hospital(folder / name, hospital, seed=5)


def told_profile(manifest: Path) -> Profile:
    """Return what the hospital tells as a site of the study."""
    cohort = load_cohort(read_manifest(manifest), STUDY.data, STUDY.task, 0)
    model = build_model(STUDY.model, STUDY.seed)
    rows = rows_of(model, [cohort.train, cohort.held_out], STUDY, torch.device("cpu"))
    return profile_of(rows, 0.0, torch.Generator())


@pytest.fixture(scope="module")
def hospitals(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of sites, of a run whose model falls with distance, and of two newcomers."""
    folder = tmp_path_factory.mktemp("hospitals")
    sites = {f"site-{n}": manifest_of(folder, f"site-{n}", s) for n, s in enumerate(SITES)}
    manifest_of(folder, "alike", "flair_3t")
    manifest_of(folder, "other", "se_t1_1p5t")
    profiles = {site: told_profile(manifest) for site, manifest in sites.items()}
    values = {site: 0.8 - SLOPE * far_from_others(site, profiles) for site in profiles}
    write_json(folder / "run" / RESULT, result_of(told_by_profiles(profiles, values, STUDY, DICE)))
    return folder


def result_of(shift: dict[str, Any]) -> dict[str, Any]:
    return {
        "study": json.loads(canonical(STUDY)),
        "study_digest": study_digest(STUDY),
        "headline": "dice",
        "metrics": {"dice": vars(DICE)},
        "shift": shift,
    }


def test_a_hospital_looks_at_home_as_it_would_tell_as_a_site(hospitals: Path) -> None:
    manifest = hospitals / "site-2" / "manifest.csv"
    own, bad_files = profile_at(read_manifest(manifest), STUDY)
    told = told_profile(manifest)
    assert not bad_files
    assert own.patients == told.patients
    assert own.parts[MEASURE] == pytest.approx(told.parts[MEASURE], abs=1e-9)


def test_a_known_scanner_may_expect_what_the_sites_have_and_another_less(hospitals: Path) -> None:
    known = expected_at(hospitals / "run", hospitals / "alike" / "manifest.csv")
    other = expected_at(hospitals / "run", hospitals / "other" / "manifest.csv")
    assert not known.expected.beyond
    assert other.expected.beyond
    apart = other.expected.distance - known.expected.distance
    # A site that is worse also makes the mean of the others better: 3 of 4 of its own drop.
    drop = other.expected.predicted.drop - known.expected.predicted.drop
    assert drop == pytest.approx(4 / 3 * SLOPE * apart, rel=0.02)
    assert other.value < known.value
    assert other.value == pytest.approx(other.expected.mean - other.expected.predicted.drop)


def test_labels_are_not_asked_for(hospitals: Path, tmp_path: Path) -> None:
    manifest = hospitals / "alike" / "manifest.csv"
    rows = [line.split(",") for line in manifest.read_text().splitlines()]
    image, patient = rows[0].index("image"), rows[0].index("patient")
    bare = [f"{manifest.parent / row[image]},{row[patient]}" for row in rows[1:]]
    (tmp_path / "manifest.csv").write_text("\n".join(["image,patient", *bare]))
    found = expected_at(hospitals / "run", tmp_path / "manifest.csv")
    assert found == expected_at(hospitals / "run", manifest)


def test_the_command_says_it_in_words_and_that_it_is_extrapolated(
    hospitals: Path, tmp_path: Path
) -> None:
    told = said(hospitals / "run", hospitals / "other" / "manifest.csv", tmp_path)
    assert told.returncode == 0, told.stderr
    answer = expected_at(hospitals / "run", hospitals / "other" / "manifest.csv")
    drop, low, high = answer.expected.predicted
    first = (
        f"expected dice drop at your hospital: {drop:.3f} (95 % interval {low:.3f} to {high:.3f}"
    )
    assert first in told.stdout
    assert "further away than any site" in told.stdout
    assert "another sequence that look alike" in told.stdout
    assert "nobody has tried how well this holds" in told.stdout
    assert sorted(path.name for path in tmp_path.iterdir()) == ["site.yaml"]


def said(run: Path, manifest: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    site = folder / "site.yaml"
    site.write_text(yaml.safe_dump({"name": "newcomer", "manifest": str(manifest)}))
    words = [sys.executable, "-m", "client.cli", "expected", str(run), "--site", str(site)]
    root = Path(__file__).parents[2]
    return subprocess.run(words, cwd=root, capture_output=True, text=True, check=False)


def test_a_run_that_does_not_tell_of_its_sites_is_refused_with_the_way_out(
    hospitals: Path, tmp_path: Path
) -> None:
    manifest = hospitals / "alike" / "manifest.csv"
    write_json(tmp_path / RESULT, result_of({"metric": "dice"}))
    with pytest.raises(SettingsError, match=r"evaluation=shift in which three sites or more"):
        expected_at(tmp_path, manifest)
    with pytest.raises(SettingsError, match=r"holds no result\.json"):
        expected_at(tmp_path / "none", manifest)


def test_too_few_patients_and_images_of_another_kind_are_refused(
    hospitals: Path, tmp_path: Path
) -> None:
    few = manifest_of(tmp_path, "few", "flair_3t", patients=LEAST_PATIENTS - 1)
    with pytest.raises(SettingsError, match=f"images of {LEAST_PATIENTS - 1} patients here"):
        expected_at(hospitals / "run", few)
    volumes = study_from("data=volumes", "data.size=[16,16,16]", "model=unet_volumes")
    pictures = pictures_site(tmp_path / "pictures", train=12).parent / "manifest.csv"
    with pytest.raises(SettingsError, match=r"of 0 patients here.* is a 2-D picture"):
        profile_at(read_manifest(pictures), volumes)


def test_how_well_it_held_for_the_studys_own_sites_is_told_beside_it(
    hospitals: Path, tmp_path: Path
) -> None:
    result = read_json(hospitals / "run" / RESULT)
    score = {"sites": {site: {} for site in "abcd"}, "covered": 3, "mean_error": 0.04}
    prediction = {**score, "mean_error_without": 0.09}
    shift = {**result["shift"], "left_out": {"prediction": prediction}}
    write_json(tmp_path / RESULT, {**result, "shift": shift})
    answer = expected_at(tmp_path, hospitals / "alike" / "manifest.csv")
    told = " ".join(lines_of(answer))
    assert "3 of 4 drops lay in their interval; the drop was off by 0.040 on average" in told
    assert "nobody has tried" not in told
    assert "further away" not in told
