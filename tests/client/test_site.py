from pathlib import Path

import pytest

from client.site import load_site
from common.schema import SettingsError


def written(folder: Path, text: str) -> Path:
    path = folder / "site.yaml"
    path.write_text(text)
    return path


def test_paths_are_relative_to_the_settings(tmp_path: Path) -> None:
    site = load_site(written(tmp_path, "name: st-a\nmanifest: ../data/manifest.csv\n"))
    assert site.name == "st-a"
    assert site.manifest_path == tmp_path / "../data/manifest.csv"
    assert site.state_path == tmp_path / "state"
    assert (site.device, site.threads) == ("cpu", 1)


def test_absolute_paths_stay(tmp_path: Path) -> None:
    site = load_site(written(tmp_path, "name: a\nmanifest: /d/m.csv\nstate: /var/s\n"))
    assert site.manifest_path == Path("/d/m.csv")
    assert site.state_path == Path("/var/s")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("name: st-a\n", "manifest"),
        ("name: st-a\nmanifest: m.csv\ngpu: true\n", "gpu"),
        ("name: st-a\nmanifest: m.csv\nthreads: many\n", "threads"),
        ("name: st-a\nmanifest: m.csv\nthreads: 0\n", "threads=0"),
        ("name: st-a\nmanifest: m.csv\ndevice: tpu\n", "'tpu' is not known"),
        ("- a\n- b\n", "holds no settings"),
        ("name: [", "cannot be read"),
    ],
)
def test_wrong_settings_are_refused_by_name(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(SettingsError, match=told):
        load_site(written(tmp_path, text))


def test_settings_that_are_not_there_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="cannot be read"):
        load_site(tmp_path / "site.yaml")
