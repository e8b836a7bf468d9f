"""Coded differences: right in the mean, exact where they say so, refused when one bit is wrong."""

import hashlib
from typing import Any

import numpy as np
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from common.compression import (
    CODED,
    MAGIC,
    CodingError,
    Differences,
    coded,
    differences_of,
    kept_of,
    left_out,
    moved_by,
)
from common.compression_config import CodecConfig, CompressionConfig
from common.framed_files import layout_of
from common.framing import pieces_of
from common.state import Arrays

CODECS = [
    CodecConfig(numbers=numbers, kept=kept, block=block)
    for numbers in ("float32", "bfloat16", "int8", "int4")
    for kept in (None, 0.3)
    for block in (1, 16, 256)
    if (numbers, kept) != ("float32", None)
]
NUMBERS = st.floats(-1e6, 1e6, width=32)
TENSORS = st.dictionaries(
    st.text("ab./", min_size=1, max_size=4),
    hnp.arrays(np.float32, hnp.array_shapes(max_dims=3, max_side=7, min_side=0), elements=NUMBERS),
    min_size=1,
    max_size=3,
)


def draws(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def told(differences: Arrays, codec: CodecConfig, seed: int = 0) -> Differences:
    return Differences(coded(differences, codec, draws(seed)), layout_of(differences), codec)


def vector(count: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).normal(size=count).astype(np.float32)


@settings(max_examples=60, deadline=None)
@given(TENSORS, st.sampled_from(CODECS))
def test_names_shapes_and_kinds_come_back(
    tensors: dict[str, NDArray[np.float32]], codec: CodecConfig
) -> None:
    arrays: dict[str, NDArray[np.generic]] = {
        **tensors,
        "count": np.array(7, np.int64),
        "wide": np.array([1e-300, 2.0]),
    }
    found = told(arrays, codec)
    assert found.layout() == layout_of(arrays)
    assert layout_of(dict(found)) == layout_of(arrays)
    for name in ("count", "wide"):
        np.testing.assert_array_equal(found[name], arrays[name])


@settings(max_examples=60, deadline=None)
@given(hnp.arrays(np.float32, st.integers(1, 600), elements=NUMBERS), st.sampled_from([1, 16, 256]))
def test_a_number_is_off_by_less_than_one_step_of_its_block(
    values: NDArray[np.float32], block: int
) -> None:
    for numbers, largest in (("int8", 127), ("int4", 7)):
        found = told({"a": values}, CodecConfig(numbers=numbers, block=block))["a"]
        for first in range(0, len(values), block):
            own = values[first : first + block].astype(np.float64)
            step = np.abs(own).max() / largest
            assert np.abs(found[first : first + block] - own).max() <= step * (1 + 1e-5) + 1e-30


@settings(max_examples=60, deadline=None)
@given(hnp.arrays(np.float32, st.integers(1, 50), elements=st.floats(width=32, allow_nan=False)))
def test_bfloat16_is_one_of_the_two_nearest(values: NDArray[np.float32]) -> None:
    values = values[np.isfinite(values)]
    found = told({"a": values}, CodecConfig(numbers="bfloat16"))["a"]
    below = (values.view(np.uint32) & 0xFFFF0000).view(np.float32)
    above = ((values.view(np.uint32) & 0xFFFF0000) + np.uint32(0x10000)).view(np.float32)
    assert np.all((found == below) | (found == above))
    assert np.isfinite(found).all()


@pytest.mark.parametrize("numbers", ["bfloat16", "int8", "int4"])
def test_rounding_is_right_in_the_mean(numbers: str) -> None:
    values, codec, turns = vector(40), CodecConfig(numbers=numbers, block=16), 3000
    found = np.stack([told({"a": values}, codec, seed)["a"] for seed in range(turns)])
    spread = found.std(axis=0).max()
    assert spread > 0
    # Five standard errors of a mean over the turns.
    np.testing.assert_allclose(found.mean(axis=0), values, atol=5 * spread / turns**0.5)


@given(hnp.arrays(np.float32, st.integers(1, 60), elements=NUMBERS), st.floats(0.01, 1.0))
def test_the_largest_travel_and_the_rest_waits(values: NDArray[np.float32], share: float) -> None:
    codec = CodecConfig(numbers="float32", kept=share)
    whole = coded({"a": values}, codec, draws())
    found = Differences(whole, layout_of({"a": values}), codec)["a"]
    chosen = np.argsort(-np.abs(values), kind="stable")[: kept_of(len(values), share)]
    naive = np.zeros_like(values)
    naive[chosen] = values[chosen]
    np.testing.assert_array_equal(found, naive)
    np.testing.assert_array_equal(left_out({"a": values}, whole, codec)["a"], values - naive)


@pytest.mark.parametrize("covered", [0.1, 0.3, 0.5, 1.0])
@pytest.mark.parametrize("kept", [0.1, 0.3])
def test_with_what_was_left_out_training_arrives_however_far_a_round_goes(
    covered: float, kept: float
) -> None:
    codec, aim = CodecConfig(numbers="int8", kept=kept), vector(200)
    state: dict[str, NDArray[np.generic]] = {"a": np.zeros(200, np.float32)}
    left: dict[str, NDArray[np.float32]] = {}
    for seed in range(200):
        # Local training covers a part of the way to where it would end.
        here: Any = state["a"]
        differences = differences_of(state, {"a": here + np.float32(covered) * (aim - here)}, left)
        whole = coded(differences, codec, draws(seed))
        left = left_out(differences, whole, codec)
        state = {"a": moved_by(state, {CODED: whole}, codec)["a"]}
    error = np.linalg.norm(state["a"] - aim) / np.linalg.norm(aim)  # type: ignore[operator]
    assert error < 0.02


def test_what_was_left_out_joins_whole_where_it_is_small() -> None:
    base = {"a": np.zeros(4, np.float32), "n": np.array(0)}
    model = {"a": np.array([4, 3, 0, 0], np.float32), "n": np.array(9)}
    waiting = {"a": np.array([0, 0, 1, 2], np.float32)}
    np.testing.assert_array_equal(differences_of(base, model, waiting)["a"], [4, 3, 1, 2])
    # Of 10, half of the new difference's 5 at most.
    far = {"a": np.array([0, 0, 6, 8], np.float32)}
    np.testing.assert_allclose(differences_of(base, model, far)["a"], [4, 3, 1.5, 2])
    assert differences_of(base, model, waiting)["n"] == 9


def test_what_rounding_alone_loses_nothing_waits_for() -> None:
    values = {"a": vector(9)}
    codec = CodecConfig(numbers="int4")
    assert left_out(values, coded(values, codec, draws()), codec) == {}


def test_equal_draws_give_equal_bytes_whatever_the_order_of_names() -> None:
    one = {"a": vector(30), "b": vector(5, 1)}
    other = dict(reversed(one.items()))
    codec = CodecConfig(numbers="int8")
    np.testing.assert_array_equal(coded(one, codec, draws()), coded(other, codec, draws()))
    assert not np.array_equal(coded(one, codec, draws()), coded(one, codec, draws(1)))


@pytest.mark.parametrize(
    ("codec", "most"),
    [
        (CodecConfig(numbers="bfloat16"), 0.5),
        (CodecConfig(numbers="int8"), 0.26),
        (CodecConfig(numbers="int4"), 0.125),
        (CodecConfig(numbers="int8", kept=0.1), 0.05),
    ],
)
def test_gaussian_differences_are_as_small_as_the_docs_say(codec: CodecConfig, most: float) -> None:
    values = {"a": vector(200_000)}
    assert len(coded(values, codec, draws())) < most * values["a"].nbytes


def test_a_model_is_the_base_and_the_difference() -> None:
    base = {"a": vector(20), "n": np.array([3, 4])}
    model = {"a": base["a"] + vector(20, 1), "n": np.array([5, 6])}
    codec = CodecConfig(numbers="int8")
    whole = coded(differences_of(base, model, {}), codec, draws())
    found = moved_by(base, {CODED: whole}, codec)
    np.testing.assert_array_equal(found["n"], model["n"])
    np.testing.assert_allclose(found["a"], model["a"], atol=0.05)
    blocks = np.concatenate(list(found.blocks("a")))
    np.testing.assert_array_equal(blocks, found["a"])
    assert found["a"].dtype == np.float32
    assert list(found) == ["a", "n"]
    assert len(found) == 2


def whole_of(values: Arrays, codec: CodecConfig) -> NDArray[np.uint8]:
    return coded(values, codec, draws())


@settings(max_examples=80)
@given(st.integers(0, 10_000), st.integers(0, 7), st.sampled_from(CODECS))
def test_one_wrong_bit_is_refused(place: int, bit: int, codec: CodecConfig) -> None:
    values = {"a": vector(64)}
    whole = whole_of(values, codec).copy()
    whole[place % len(whole)] ^= 1 << bit
    with pytest.raises(CodingError):
        Differences(whole, layout_of(values), codec)


@given(st.integers(0, 2000))
def test_a_cut_message_is_refused(length: int) -> None:
    values, codec = {"a": vector(64)}, CodecConfig(numbers="int8")
    whole = whole_of(values, codec)
    with pytest.raises(CodingError):
        Differences(whole[: length % len(whole)], layout_of(values), codec)


def sealed(payload: bytes) -> NDArray[np.uint8]:
    return np.frombuffer(MAGIC + hashlib.sha256(payload).digest() + payload, np.uint8)


def packed(parts: Arrays) -> NDArray[np.uint8]:
    framed = b"".join(pieces_of(parts)[1])
    return sealed(zstandard.ZstdCompressor().compress(framed))


def test_what_unpacks_to_more_than_a_model_is_refused() -> None:
    layout, codec = layout_of({"a": vector(64)}), CodecConfig(numbers="int8")
    bomb = sealed(zstandard.ZstdCompressor().compress(bytes(10**8)))
    with pytest.raises(CodingError, match="cannot be unpacked"):
        Differences(bomb, layout, codec)


INT8 = {"n/a": np.zeros(64, np.int8), "s/a": np.zeros(1, np.float32)}


@pytest.mark.parametrize(
    "parts",
    [
        {"n/a": INT8["n/a"]},
        {**INT8, "s/a": np.zeros(2, np.float32)},
        {**INT8, "n/a": np.zeros(64, np.uint8)},
        {**INT8, "n/a": np.zeros(65, np.int8)},
        {**INT8, "n/b": np.zeros(64, np.int8)},
        {**INT8, "w/a": np.zeros(8, np.uint8)},
    ],
)
def test_parts_of_other_tensors_are_refused(parts: Arrays) -> None:
    layout = layout_of({"a": vector(64)})
    Differences(packed(INT8), layout, CodecConfig(numbers="int8"))
    with pytest.raises(CodingError, match="other tensors"):
        Differences(packed(parts), layout, CodecConfig(numbers="int8"))


@pytest.mark.parametrize("which", [[0xFF, 0, 0], [0x80, 0x80, 0x01], [0, 0, 0]])
def test_another_share_than_the_studys_is_refused(which: list[int]) -> None:
    layout, codec = layout_of({"a": vector(17)}), CodecConfig(numbers="float32", kept=0.17)
    numbers = np.ones(3, np.float32)
    good = {"n/a": numbers, "w/a": np.array([0x80, 0x80, 0x80], np.uint8)}
    np.testing.assert_array_equal(
        np.flatnonzero(Differences(packed(good), layout, codec)["a"]), [0, 8, 16]
    )
    with pytest.raises(CodingError, match="the study's share"):
        Differences(packed({**good, "w/a": np.array(which, np.uint8)}), layout, codec)


@pytest.mark.parametrize(
    "arrived",
    [
        {},
        {"a": vector(64)},
        {CODED: vector(4)},
        {CODED: np.zeros((2, 2), np.uint8)},
        {CODED: np.zeros(9, np.uint8), "a": vector(64)},
    ],
)
def test_weights_that_are_not_coded_are_refused(arrived: Arrays) -> None:
    with pytest.raises(CodingError):
        moved_by({"a": vector(64)}, arrived, CodecConfig(numbers="int8"))


@pytest.mark.parametrize(
    ("codec", "message"),
    [
        (CodecConfig(numbers="int2"), r"compression\.up\.numbers='int2' is not known.*int4"),
        (CodecConfig(block=0), r"compression\.up\.block=0"),
        (CodecConfig(kept=0.0), r"compression\.up\.kept=0"),
        (CodecConfig(kept=1.5), r"compression\.up\.kept=1\.5"),
        (CodecConfig(numbers="float32"), "code nothing"),
    ],
)
def test_impossible_settings_are_refused(codec: CodecConfig, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CompressionConfig(up=codec)


@pytest.mark.parametrize("codec", [CodecConfig(numbers="int4"), CodecConfig(kept=0.1)])
def test_a_variance_never_falls_below_zero(codec: CodecConfig) -> None:
    base = {"1.running_var": np.array([1e-6, 1.0, 5.0], np.float32)}
    model = {"1.running_var": np.array([2e-6, 1.0, 90.0], np.float32)}
    whole = coded(differences_of(base, model, {}), codec, draws())
    found = moved_by(base, {CODED: whole}, codec)
    np.testing.assert_allclose(found["1.running_var"], model["1.running_var"], rtol=1e-6)


@settings(max_examples=60)
@given(TENSORS, st.sampled_from(CODECS))
def test_what_was_coded_is_what_is_sealed_anew(
    tensors: dict[str, NDArray[np.float32]], codec: CodecConfig
) -> None:
    whole = coded(tensors, codec, draws())
    anew = Differences(whole, layout_of(tensors), codec).sealed_anew()
    np.testing.assert_array_equal(anew, whole)


def test_nothing_else_in_the_bytes_is_sealed_anew() -> None:
    codec, layout = CodecConfig(numbers="int8"), layout_of({"a": vector(64)})
    noted = b"".join(pieces_of(INT8, {"note": "Jane Doe, bed 4"})[1])
    whole = sealed(zstandard.ZstdCompressor().compress(noted))
    anew = Differences(whole, layout, codec).sealed_anew()
    payload = zstandard.ZstdDecompressor().decompress(anew.tobytes()[36:])
    assert b"note" not in payload
    assert b"Jane" not in payload


@pytest.mark.parametrize(
    "hidden",
    [
        {"n/a": np.frombuffer(b"patient Jane Doe" * 4, np.int8)},
        {"n/a": np.full(64, -128, np.int8), "s/a": np.ones(1, np.float32)},
        {"s/a": np.array([np.nan], np.float32)},
        {"s/a": np.array([-1.0], np.float32)},
    ],
)
def test_numbers_that_coding_never_makes_are_not_sealed(hidden: Arrays) -> None:
    layout = layout_of({"a": vector(64)})
    found = Differences(packed({**INT8, **hidden}), layout, CodecConfig(numbers="int8"))
    with pytest.raises(CodingError, match="never makes"):
        found.sealed_anew()


def test_a_half_of_a_byte_that_is_no_number_is_not_sealed() -> None:
    layout, codec = layout_of({"a": vector(3)}), CodecConfig(numbers="int4")
    parts = {"n/a": np.array([0x11, 0x71], np.uint8), "s/a": np.ones(1, np.float32)}
    with pytest.raises(CodingError, match="never makes"):
        Differences(packed(parts), layout, codec).sealed_anew()


@pytest.mark.parametrize(
    "payload",
    [
        b"garbage!garbage",
        b"",
        *(
            len(header).to_bytes(8, "little") + header
            for header in (
                b'{"n/a":{"dtype":"I8","shape":[%d,0],"data_offsets":[0,0]}}' % 2**64,
                b'{"n/a":{"dtype":"I8","shape":[0,0,%d],"data_offsets":[0,0]}}' % 2**62,
                b'{"n/a":{"dtype":"I8","shape":[' + b"0," * 99 + b'0],"data_offsets":[0,0]}}',
            )
        ),
    ],
)
def test_a_payload_of_a_right_checksum_that_holds_no_tensors_is_refused(payload: bytes) -> None:
    whole = sealed(zstandard.ZstdCompressor().compress(payload))
    with pytest.raises(CodingError):
        Differences(whole, layout_of({"a": vector(64)}), CodecConfig(numbers="int8"))


def test_bytes_longer_than_a_model_are_not_looked_at() -> None:
    long = np.zeros(10**6, np.uint8)
    with pytest.raises(CodingError, match="longer than the model"):
        Differences(long, layout_of({"a": vector(64)}), CodecConfig(numbers="int8"))
