import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from safetensors.numpy import load_file, save_file

from common.framed_files import FramedFile, WeightsReference, reference_to, write_framed
from common.framing import FramingError

ARRAYS = st.dictionaries(
    st.text("abc.", min_size=1, max_size=4),
    arrays(np.float32, array_shapes(max_dims=3, max_side=4), elements=st.floats(-1, 1, width=32)),
    max_size=4,
)


@given(weights=ARRAYS)
def test_a_file_is_safetensors_and_reads_back(
    weights: dict[str, np.ndarray], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("f")
    named = write_framed(folder, weights)
    path = folder / named.sha256
    assert path.stat().st_size == named.length_bytes
    assert named == reference_to(weights)
    read, by_library = FramedFile(path), load_file(path)
    assert set(read) == set(by_library) == set(weights)
    assert len(read) == len(weights)
    for name, array in weights.items():
        assert np.array_equal(read[name], array)
        assert np.array_equal(by_library[name], array)


def test_one_tensor_at_a_time_is_in_memory(tmp_path: Path) -> None:
    weights = {f"w{n}": np.full(250_000, n, np.float32) for n in range(8)}
    path = tmp_path / "weights"
    save_file(weights, path)
    tracemalloc.start()
    try:
        total = sum(float(array.sum()) for array in FramedFile(path).values())
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert total == 250_000 * sum(range(8))
    assert peak < 3 * weights["w0"].nbytes


@pytest.mark.parametrize(
    "content", [b"", b"123", b"\xff" * 8 + b"{}", b"\x02" + bytes(7) + b"{}" + b"rest"]
)
def test_a_file_of_other_bytes_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "weights"
    path.write_bytes(content)
    with pytest.raises(FramingError):
        FramedFile(path)


@pytest.mark.parametrize(("sha256", "length"), [("x", 1), ("A" * 64, 1), ("a" * 64, 0)])
def test_a_name_of_weights_is_a_digest_and_a_length(sha256: str, length: int) -> None:
    with pytest.raises(ValueError, match="SHA-256"):
        WeightsReference(sha256=sha256, length_bytes=length)


def test_a_file_that_is_deleted_meanwhile_is_read_to_its_end(tmp_path: Path) -> None:
    path = tmp_path / "weights"
    save_file({"w": np.arange(6, dtype=np.float32)}, path)
    opened = FramedFile(path)
    path.unlink()
    assert opened["w"].tolist() == [0, 1, 2, 3, 4, 5]
    assert [block.tolist() for block in opened.blocks("w")] == [[0, 1, 2, 3, 4, 5]]
