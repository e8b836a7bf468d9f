from pathlib import Path

import pytest
from PIL import Image

from client import site_data
from client.site import load_site
from client.site_data import cohort_of, listed_at, read_data_set
from tests.builders import PICTURES, pictures_site


def manifests(folder: Path, count: int) -> list[Path]:
    paths = [pictures_site(folder / f"{number:03d}", train=2, test=1) for number in range(count)]
    return [load_site(path).manifest_path for path in paths]


def test_a_hundred_hospitals_are_read_once(tmp_path: Path) -> None:
    found = manifests(tmp_path, 100)
    first = [cohort_of(manifest, PICTURES) for manifest in found]
    assert all(cohort_of(m, PICTURES) is cohort for m, cohort in zip(found, first, strict=True))
    data_sets = [read_data_set(listed_at(manifest)) for manifest in found]
    again = [read_data_set(listed_at(manifest)) for manifest in found]
    assert all(one is other for one, other in zip(data_sets, again, strict=True))


def test_a_changed_file_is_read_again(tmp_path: Path) -> None:
    (manifest,) = manifests(tmp_path, 1)
    first = cohort_of(manifest, PICTURES)
    picture = next(manifest.parent.glob("*.png"))
    Image.open(picture).point(lambda value: 255 - value).save(picture)
    second = cohort_of(manifest, PICTURES)
    assert second is not first
    assert second.fingerprint != first.fingerprint


def test_where_memory_is_short_the_newest_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = manifests(tmp_path, 2)
    monkeypatch.setattr(site_data, "SHARE", 0.0)
    first = cohort_of(one, PICTURES)
    assert cohort_of(one, PICTURES) is first
    newest = cohort_of(other, PICTURES)
    assert cohort_of(other, PICTURES) is newest
    assert cohort_of(one, PICTURES) is not first
