import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from numpy.typing import NDArray
from safetensors.numpy import load, save

from common import framing
from common.framing import PIECE_BYTES, FramingError, arrays_in, gathered, pieces_of

DTYPES = [np.float64, np.float32, np.float16, np.int64, np.int32, np.uint8, np.int8, np.bool_]
SOME = st.dictionaries(
    st.text(max_size=5).filter(lambda name: name != "__metadata__"),
    st.sampled_from(DTYPES).flatmap(
        lambda dtype: arrays(dtype, array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3))
    ),
    max_size=4,
)


def framed(of: dict[str, NDArray[np.generic]]) -> bytearray:
    length, pieces = pieces_of(of)
    whole = bytearray(b"".join(pieces))
    assert len(whole) == length
    return whole


def assert_same(one: dict[str, NDArray[np.generic]], two: dict[str, NDArray[np.generic]]) -> None:
    assert one.keys() == two.keys()
    for name, array in one.items():
        assert (array.shape, array.dtype) == (two[name].shape, two[name].dtype)
        assert array.tobytes() == two[name].tobytes()


@given(of=SOME)
def test_what_is_cut_into_pieces_comes_back_bit_for_bit_and_in_order(
    of: dict[str, NDArray[np.generic]],
) -> None:
    back = arrays_in(framed(of))
    assert_same(of, back)
    assert list(of) == list(back)
    assert all(array.flags.aligned for array in back.values())


@given(of=SOME)
def test_the_bytes_are_those_that_safetensors_reads_and_writes(
    of: dict[str, NDArray[np.generic]],
) -> None:
    assert_same(of, load(bytes(framed(of))))
    assert_same(of, arrays_in(bytearray(save(of))))


def test_no_piece_is_longer_than_a_mebibyte_and_arrays_share_the_buffer() -> None:
    of = {"w": np.arange(3 * PIECE_BYTES // 4, dtype=np.float32).reshape(3, -1).T}
    length, pieces = pieces_of(of)
    cut = list(pieces)
    assert max(map(len, cut)) == PIECE_BYTES
    whole = gathered(cut, length)
    back = arrays_in(whole)
    assert_same(of, back)
    assert np.shares_memory(back["w"], np.frombuffer(whole, np.uint8))


def header(about: object, data: bytes = b"") -> bytearray:
    text = json.dumps(about).encode()
    return bytearray(len(text).to_bytes(8, "little") + text + data)


def tensor(**changes: object) -> dict[str, object]:
    return {"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4], **changes}}


@pytest.mark.parametrize(
    ("broken", "text"),
    [
        (bytearray(b"\x01"), "cut off"),
        (bytearray(b"\xff" * 40), "cut off"),
        (bytearray((9).to_bytes(8, "little") + b"not json!"), "cannot be read"),
        (header([]), "cannot be read"),
        (header({"w": 1}), "cannot be read"),
        (header(tensor(dtype="BF16"), b"0123"), "cannot be read"),
        (header(tensor(extra=1), b"0123"), "cannot be read"),
        (header(tensor()), "another length"),
        (header(tensor(), b"01234567"), "another length"),
        (header(tensor(data_offsets=[4, 8]), b"01234567"), "overlap or leave gaps"),
        (header(tensor(data_offsets=[0, -4]), b"0123"), "overlap or leave gaps"),
        (header(tensor(data_offsets=[0.0, 4.0]), b"0123"), "overlap or leave gaps"),
        (header(tensor(shape=[2]), b"0123"), "another size"),
        (header(tensor(shape=[-1]), b"0123"), "impossible shape"),
        (header(tensor(shape=[True]), b"0123"), "impossible shape"),
    ],
)
def test_bytes_that_are_no_weights_are_refused(broken: bytearray, text: str) -> None:
    with pytest.raises(FramingError, match=text):
        arrays_in(broken)


@given(junk=st.binary(max_size=60))
def test_any_bytes_are_weights_or_refused(junk: bytes) -> None:
    try:
        arrays = arrays_in(bytearray(junk))
    except FramingError:
        return
    assert sum(array.nbytes for array in arrays.values()) <= len(junk)


@pytest.mark.parametrize(
    ("pieces", "length"), [([b"ab"], 1), ([b"ab"], 3), ([b"a", b"bc"], 2), ([], 1)]
)
def test_more_or_fewer_bytes_than_announced_are_refused(pieces: list[bytes], length: int) -> None:
    with pytest.raises(FramingError, match="another length than was announced"):
        gathered(pieces, length)


def test_a_length_beyond_all_models_is_refused_before_it_is_held() -> None:
    with pytest.raises(FramingError, match="impossible length"):
        gathered([], framing.MOST_BYTES + 1)


def test_numbers_that_safetensors_lacks_are_refused() -> None:
    with pytest.raises(FramingError, match="send float32"):
        pieces_of({"w": np.zeros(2, np.complex128)})
