"""What every command line does alike."""

from pathlib import Path

import pytest

from common.command import expanded


def test_a_file_of_settings_stands_for_its_lines(tmp_path: Path) -> None:
    file = tmp_path / "settings.txt"
    file.write_text("# a comment\n\nrounds=2\n  data.root=/a folder/b \n# rounds=3\nname='#1'\n")
    assert expanded(["seed=1", f"@{file}", "rounds=4"]) == [
        *("seed=1", "rounds=2", "data.root=/a folder/b", "name='#1'", "rounds=4")
    ]
    assert expanded(["model@other=unet"]) == ["model@other=unet"]


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="none cannot be read as settings"):
        expanded([f"@{tmp_path / 'none'}"])
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError, match="binary cannot be read"):
        expanded([f"@{tmp_path / 'binary'}"])
