"""Every image of a folder is an input once, and no two answers have one name."""

from pathlib import Path

import pytest

from client.prediction.inputs import inputs_at
from common.schema import SettingsError
from tests.dicoms import stored_volume, write_enhanced, write_series


def made(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def test_a_folder_is_read_with_its_folders_and_without_what_is_hidden(tmp_path: Path) -> None:
    made(tmp_path, "b/2.nii.gz", "a/1.PNG", "notes.txt", ".cache/3.png", "a/.4.png")
    found = inputs_at(tmp_path, tmp_path.parent / "out")
    assert [(one.name, one.stem) for one in found.inputs] == [
        ("a/1.PNG", "a/1"),
        ("b/2.nii.gz", "b/2"),
    ]
    assert found.others == 1


def test_two_kinds_of_one_name_keep_their_endings(tmp_path: Path) -> None:
    made(tmp_path, "1.nii", "1.nii.gz", "1.png", "2.png")
    stems = [one.stem for one in inputs_at(tmp_path, tmp_path / "out").inputs]
    assert stems == ["1.nii", "1.nii.gz", "1.png", "2"]


def test_no_two_images_have_the_same_stem(tmp_path: Path) -> None:
    made(tmp_path, "1.jpg", "1.png", "1.png.png", "1.png.png.png")
    stems = [one.stem for one in inputs_at(tmp_path, tmp_path / "out").inputs]
    assert len(set(stems)) == 4


def test_earlier_answers_are_no_images(tmp_path: Path) -> None:
    made(tmp_path, "1.png", "old/1_mask.png", "old/more/2_mask.png")
    made(tmp_path, "old/about.json", "old/predictions.csv")
    assert [one.name for one in inputs_at(tmp_path, tmp_path / "out").inputs] == ["1.png"]


def test_a_single_file_is_an_input_whatever_its_kind(tmp_path: Path) -> None:
    (one,) = inputs_at(made(tmp_path, "x/1.bmp") / "x/1.bmp", tmp_path / "out").inputs
    assert (one.name, one.stem) == ("1.bmp", "1")


def test_nothing_to_predict_is_told(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="does not exist"):
        inputs_at(tmp_path / "nothing", tmp_path / "out")
    with pytest.raises(SettingsError, match="holds no image among 1 files"):
        inputs_at(made(tmp_path, "notes.txt"), tmp_path / "out")
    with pytest.raises(SettingsError, match="is the input folder"):
        inputs_at(made(tmp_path, "1.png"), tmp_path)


def test_a_folder_of_one_series_is_one_image_and_radiographs_are_one_each(tmp_path: Path) -> None:
    write_series(tmp_path / "ct")
    for name in ("a", "b"):
        write_enhanced(made(tmp_path, f"mr/{name}") / f"mr/{name}", stored_volume(2), [1, 1])
    found = inputs_at(tmp_path, tmp_path.parent / "out").inputs
    assert [(one.name, one.stem) for one in found] == [
        ("ct", "ct"),
        ("mr/a", "mr/a"),
        ("mr/b", "mr/b"),
    ]


def test_the_input_folder_itself_may_be_one_series(tmp_path: Path) -> None:
    write_series(tmp_path / "ct")
    (one,) = inputs_at(tmp_path / "ct", tmp_path / "out").inputs
    assert (one.path, one.stem) == (tmp_path / "ct", "ct")


@pytest.mark.parametrize("output", ["site", "site/scans", "site/scans/masks"])
def test_answers_take_the_place_of_no_file(tmp_path: Path, output: str) -> None:
    made(tmp_path, "site/scans/0.nii", "site/scans/masks/0_mask.nii.gz")
    for path in ("site/scans", "site/scans/0.nii"):
        with pytest.raises(SettingsError, match="the place of"):
            inputs_at(tmp_path / path, tmp_path / output)
