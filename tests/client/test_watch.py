"""A scanner that is swapped is noticed; one that is not, is not."""

import csv
import subprocess
import sys
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path

import pytest
import yaml

from client.manifest import read_manifest
from client.watch import Watched, dates_of, watch_site
from simulation.config import named_scanner
from simulation.hospitals import Hospital, write_hospital
from tests.builders import study_from

STUDY = "experiment=virtual_mri"
FIRST, SWAP, BEFORE, AFTER = date(2026, 1, 1), date(2026, 2, 1), 31, 12


def site_of(folder: Path, then: str, dated: bool = True) -> Path:
    """Write a site whose scanner is another from the swap on; return its manifest."""
    rows: list[dict[str, str]] = []
    for name, scanner, count in (("old", "flair_3t", BEFORE), ("new", then, AFTER)):
        hospital = Hospital(name=name, scanner=named_scanner(scanner), patients=count)
        manifest = write_hospital(folder / name, hospital, seed=3)
        with manifest.open() as file:
            for row in csv.DictReader(file):
                day = FIRST + timedelta(days=len(rows))
                images = {key: str(manifest.parent / row[key]) for key in ("image", "mask")}
                rows.append({**row, **images, **({"date": str(day)} if dated else {})})
    path = folder / "manifest.csv"
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def watch_at(manifest: Path) -> Watched:
    return watch_site(read_manifest(manifest), study_from(STUDY), SWAP, 0.01)


def test_a_swapped_scanner_is_noticed_within_a_few_patients(tmp_path: Path) -> None:
    found = watch_at(site_of(tmp_path, "flair_1p5t"))
    assert (found.before, len(found.patients)) == (BEFORE, AFTER)
    assert found.watch.alarm is not None
    assert found.watch.alarm < 4
    assert found.dates[0] == SWAP


def test_the_same_scanner_is_no_change(tmp_path: Path) -> None:
    assert watch_at(site_of(tmp_path, "flair_3t")).watch.alarm is None


def test_patients_whom_nobody_has_outlined_are_watched_too(tmp_path: Path) -> None:
    rows = read_manifest(site_of(tmp_path, "flair_1p5t"))
    unmarked = [replace(r, mask=None) if r.patient.startswith("new") else r for r in rows]
    found = watch_site(unmarked, study_from(STUDY), SWAP, 0.01)
    assert (found.before, len(found.patients)) == (BEFORE, AFTER)
    assert found.watch.alarm is not None


def test_the_command_says_from_which_patient_on_and_how_to_go_on(tmp_path: Path) -> None:
    manifest = site_of(tmp_path, "se_t2_1p5t")
    site = tmp_path / "site.yaml"
    site.write_text(yaml.safe_dump({"name": "st-a", "manifest": str(manifest)}))
    words = [sys.executable, "-m", "client.cli", "watch", "--since", str(SWAP), STUDY]
    told = subprocess.run(
        [*words, "--site", str(site)],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert told.returncode == 3, told.stderr
    assert "CHANGE: from patient new-0" in told.stdout
    assert "31 patients before 2026-02-01, 12 from then on" in told.stdout


def test_a_manifest_without_days_is_refused_with_the_column_it_lacks(tmp_path: Path) -> None:
    manifest = site_of(tmp_path, "flair_3t", dated=False)
    with pytest.raises(ValueError, match="the manifest has no column date"):
        dates_of(read_manifest(manifest))
