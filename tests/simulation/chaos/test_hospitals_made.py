from pathlib import Path

from simulation.chaos.hospitals import charges_of, site_folders


def test_sites_are_named_by_their_folders(tmp_path: Path) -> None:
    for name in ("000-north", "001-st-marys"):
        (tmp_path / "sites" / name).mkdir(parents=True)
    assert list(site_folders(tmp_path)) == ["north", "st-marys"]


def test_a_site_without_a_ledger_has_charged_nothing(tmp_path: Path) -> None:
    assert charges_of(tmp_path, "0" * 64) == {}
