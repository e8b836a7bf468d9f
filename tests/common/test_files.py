from pathlib import Path

import pytest
import torch

from common.files import read_json, write_atomic, write_json
from common.tensor_files import read_tensors, write_tensors


def test_tensors_and_what_is_said_about_them_come_back(tmp_path: Path) -> None:
    tensors = {"a": torch.arange(6.0).reshape(2, 3).T, "n": torch.tensor(3)}
    write_tensors(tmp_path / "x.safetensors", tensors, {"round": 2})
    back, about = read_tensors(tmp_path / "x.safetensors")
    assert about == {"round": 2}
    assert all(torch.equal(back[name], tensors[name]) for name in tensors)


def test_the_same_tensors_are_the_same_bytes(tmp_path: Path) -> None:
    a, b = torch.ones(2), torch.zeros(3)
    write_tensors(tmp_path / "1", {"a": a, "b": b})
    write_tensors(tmp_path / "2", {"b": b, "a": a})
    assert (tmp_path / "1").read_bytes() == (tmp_path / "2").read_bytes()


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    write_json(tmp_path / "x.json", {"a": 1})
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "x.json", {"a": float("nan")})
    assert read_json(tmp_path / "x.json") == {"a": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["x.json"]


def test_write_makes_the_folder(tmp_path: Path) -> None:
    write_atomic(tmp_path / "a" / "b", b"x")
    assert (tmp_path / "a" / "b").read_bytes() == b"x"
