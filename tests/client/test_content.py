import hashlib
import os
from pathlib import Path

from client.content import digest_of, files_of
from client.readers.registry import is_dicom


def write(folder: Path, **contents: str) -> Path:
    for name, text in contents.items():
        path = folder / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def test_a_file_has_its_own_sha_256(tmp_path: Path) -> None:
    write(tmp_path, a="x")
    assert digest_of(tmp_path / "a") == hashlib.sha256(b"x").hexdigest()
    assert files_of(tmp_path / "a") == [tmp_path / "a"]
    assert digest_of(tmp_path / "gone") == "unreadable"


def test_a_folder_is_its_files_whatever_they_are_called(tmp_path: Path) -> None:
    one = write(tmp_path / "1", a="x", b="y")
    other = write(tmp_path / "2", c="y", d="x")
    assert digest_of(one) == digest_of(other)
    write(other, d="z")
    assert digest_of(one) != digest_of(other)


def test_a_link_that_leads_round_in_a_circle_comes_to_an_end(tmp_path: Path) -> None:
    folder = write(tmp_path / "1", a="x", deep__b="y")
    outside = write(tmp_path / "2", c="z")
    (folder / "deep" / "round").symlink_to(folder)
    (folder / "elsewhere").symlink_to(outside)
    assert [file.name for file in files_of(folder)] == ["a", "b", "c"]
    before = digest_of(folder)
    write(outside, c="changed")
    assert digest_of(folder) != before


def test_a_pipe_is_no_file_and_nobody_waits_for_it(tmp_path: Path) -> None:
    folder = write(tmp_path / "1", a="x")
    os.mkfifo(folder / "pipe")
    assert files_of(folder) == [folder / "a"]
    assert digest_of(folder / "pipe") == "unreadable"
    assert not is_dicom(folder / "pipe")


def test_hidden_files_do_not_count(tmp_path: Path) -> None:
    folder = write(tmp_path / "1", a="x", deep__b="y")
    before = digest_of(folder)
    (folder / ".DS_Store").write_text("no")
    (folder / "deep" / ".hidden").write_text("no")
    assert digest_of(folder) == before
    assert files_of(folder) == [folder / "a", folder / "deep" / "b"]
