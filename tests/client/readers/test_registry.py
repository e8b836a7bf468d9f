from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from client.readers import READERS, BadFileError, read_image, read_mask
from client.readers.registry import ending, stem


def ramp(*shape: int) -> np.ndarray:
    return np.arange(np.prod(shape), dtype=np.float32).reshape(shape)


def nifti(path: Path, array: np.ndarray) -> Path:
    nib.save(nib.Nifti1Image(array, np.eye(4)), path)
    return path


def bad_files(folder: Path) -> dict[str, tuple[Path, str]]:
    """One file of each kind of badness: name -> (path, a word of its reason)."""
    nan, hole, infinite = ramp(4, 4, 4), ramp(4, 4, 4), ramp(4, 4, 4)
    nan[:], hole[0, 0, 0], infinite[0, 0, 0] = np.nan, np.nan, np.inf
    (folder / "words.png").write_text("these are words")
    (folder / "words.nii.gz").write_text("these are words")
    (folder / "nothing.png").touch()
    (folder / "sub").mkdir()
    (folder / "scan.mha").write_bytes(b"DICM")
    whole = nifti(folder / "whole.nii.gz", ramp(16, 16, 16)).read_bytes()
    (folder / "cut.nii.gz").write_bytes(whole[: len(whole) // 2])
    Image.fromarray(ramp(64, 64).astype(np.uint8)).save(folder / "whole.jpg")
    whole = (folder / "whole.jpg").read_bytes()
    (folder / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    Image.new("L", (8, 8)).save(folder / "black.png")
    return {
        "missing": (folder / "gone.png", "does not exist"),
        "a folder": (folder / "sub", "holds no DICOM file"),
        "no image": (folder / "words.png", "not a picture"),
        "no volume": (folder / "words.nii.gz", "not a NIfTI"),
        "zero bytes": (folder / "nothing.png", "empty (0 bytes)"),
        "unknown ending": (folder / "scan.mha", "'.mha'"),
        "cut volume": (folder / "cut.nii.gz", "broken"),
        "cut picture": (folder / "cut.jpg", "broken"),
        "black picture": (folder / "black.png", "every voxel is 0"),
        "black volume": (nifti(folder / "zero.nii", np.zeros((3, 3, 3))), "every voxel is 0"),
        "no voxel": (nifti(folder / "none.nii", ramp(0, 3, 3)), "empty (shape (0, 3, 3))"),
        "all NaN": (nifti(folder / "nan.nii", nan), "no voxel is a number"),
        "one NaN": (nifti(folder / "hole.nii", hole), "1 values that are not finite"),
        "infinite": (nifti(folder / "inf.nii", infinite), "not finite"),
        "four dimensions": (nifti(folder / "series.nii", ramp(3, 3, 3, 2)), "4 dimensions"),
        "two dimensions": (nifti(folder / "plane.nii", ramp(3, 3)), "2 dimensions"),
    }


BAD = [
    "missing",
    "a folder",
    "no image",
    "no volume",
    "zero bytes",
    "unknown ending",
    "cut volume",
    "cut picture",
    "black picture",
    "black volume",
    "no voxel",
    "all NaN",
    "one NaN",
    "infinite",
    "four dimensions",
    "two dimensions",
]


@pytest.mark.parametrize("kind", BAD)
def test_bad_file_is_named_with_reason_and_remedy(tmp_path: Path, kind: str) -> None:
    path, word = bad_files(tmp_path)[kind]
    with pytest.raises(BadFileError) as caught:
        read_image(path, 1)
    error = caught.value
    assert word in error.reason
    assert error.path == path
    assert len(error.remedy) > 10
    for part in (str(path), error.reason, error.remedy):
        assert part in str(error)


def test_the_list_of_bad_kinds_is_whole(tmp_path: Path) -> None:
    assert sorted(bad_files(tmp_path)) == sorted(BAD)


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz", "a.png", "a.jpg"])
@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(keep=st.floats(0, 1), at=st.floats(0, 0.999), byte=st.integers(0, 255))
def test_whatever_happens_to_the_bytes_only_bad_file_error_is_raised(
    tmp_path: Path, name: str, keep: float, at: float, byte: int
) -> None:
    path = tmp_path / name
    if path.suffix in (".nii", ".gz"):
        nifti(path, ramp(6, 5, 4))
    else:
        Image.fromarray(ramp(16, 12).astype(np.uint8)).save(path)
    content = bytearray(path.read_bytes())
    content[int(at * len(content))] = byte
    path.write_bytes(bytes(content[: int(keep * len(content)) + 1]))
    for read in (lambda: read_image(path, 1), lambda: read_mask(path)):
        try:
            read()
        except BadFileError as error:
            assert error.path == path  # noqa: PT017 - both outcomes are right


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("a.nii.gz", ("a", ".nii.gz")),
        ("a.b.NII.GZ", ("a.b", ".nii.gz")),
        ("a.v2.png", ("a.v2", ".png")),
        ("a.JPEG", ("a", ".jpeg")),
        ("a", ("a", "")),
    ],
)
def test_a_name_is_its_stem_and_its_ending(name: str, parts: tuple[str, str]) -> None:
    assert (stem(Path(name)), ending(Path(name))) == parts


def test_endings_are_known_in_capitals_too(tmp_path: Path) -> None:
    Image.fromarray(ramp(4, 4).astype(np.uint8)).save(tmp_path / "A.PNG")
    assert read_image(tmp_path / "A.PNG", 1).array_CS.shape == (1, 4, 4)
    assert ".png" in READERS


def test_an_empty_mask_is_a_mask(tmp_path: Path) -> None:
    mask = read_mask(nifti(tmp_path / "m.nii", np.zeros((3, 4, 5), np.uint8)))
    assert mask.array_CS.shape == (1, 3, 4, 5)
    assert not mask.array_CS.any()
