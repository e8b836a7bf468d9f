import os
from pathlib import Path

import pytest

from common.system_errors import check_writable, reason_of, words_of


def test_a_line_names_the_place_the_reason_and_the_way_out(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as missing:
        (tmp_path / "none.yaml").read_bytes()
    told = words_of(missing.value)
    assert told == f"{tmp_path / 'none.yaml'}: no such file or directory; correct the path"
    temporary = PermissionError(13, "Permission denied", str(tmp_path / ".manifest.csv.tmp"))
    assert words_of(temporary).startswith(f"{tmp_path}: permission denied; give this user")
    assert words_of(OSError(5, "Input/output error", b"/dev/x")) == "/dev/x: input/output error"


def test_an_error_with_words_of_its_own_keeps_them() -> None:
    assert words_of(OSError("the port 80 is in use")) == "the port 80 is in use"
    assert words_of(OSError(98, "Address already in use")) == "[Errno 98] Address already in use"


def test_a_reason_has_no_number_and_no_second_path() -> None:
    assert reason_of(FileNotFoundError(2, "No such file or directory", "/x")) == (
        "no such file or directory"
    )
    assert reason_of(ValueError("a key is missing")) == "a key is missing"


def test_whether_a_folder_can_be_written_is_seen_before(tmp_path: Path) -> None:
    check_writable(tmp_path / "new" / "newer")
    assert not (tmp_path / "new").exists()
    (tmp_path / "file").write_text("")
    with pytest.raises(NotADirectoryError, match="file"):
        check_writable(tmp_path / "file" / "new")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_the_right_to_write_is_refused(tmp_path: Path) -> None:
    (tmp_path / "theirs").mkdir(mode=0o500)
    with pytest.raises(PermissionError, match="theirs"):
        check_writable(tmp_path / "theirs" / "new")
