"""A site that codes its updates: what leaves, what waits, and that asking again changes nothing."""

from pathlib import Path

import numpy as np
import pytest

from client.trainer import trainer_at
from common.compression import CODED, moved_by
from common.compression_config import CodecConfig
from tests.builders import (
    PICTURES,
    PRIVATE,
    Weights,
    charges_at,
    initial_weights,
    pictures_site,
    request_for,
    study_from,
)

INT8 = (*PICTURES, "compression=int8")
TOP = (*PICTURES, "compression=top")


def update_of(folder: Path, study: tuple[str, ...], number: int = 1) -> Weights:
    trainer = trainer_at(folder / "site.yaml" if folder.exists() else pictures_site(folder))
    weights = trainer.train(request_for(*study, round_number=number), initial_weights(*study))
    assert weights.weights is not None
    return dict(weights.weights)


def codec_of(study: tuple[str, ...]) -> CodecConfig:
    codec = study_from(*study).codec_up
    assert codec is not None
    return codec


@pytest.mark.parametrize("more", [(), PRIVATE])
def test_what_leaves_is_the_plain_update_to_a_step_of_its_code(
    tmp_path: Path, more: tuple[str, ...]
) -> None:
    base = initial_weights(*INT8)
    coded = update_of(tmp_path / "a", (*INT8, *more))
    assert list(coded) == [CODED]
    found = moved_by(base, coded, codec_of(INT8))
    if more:
        # The study is another one, so its noise is: its size must fit, not its values.
        assert max(float(np.abs(found[n] - base[n]).max()) for n in base) < 0.1
        assert len(charges_at(tmp_path / "a")) == 1
        return
    plain = update_of(tmp_path / "b", PICTURES)
    for name in base:
        step = np.abs(plain[name] - base[name]).max() / 127
        np.testing.assert_allclose(found[name], plain[name], atol=1.01 * step + 1e-7)


def test_the_same_request_is_answered_with_the_same_bytes(tmp_path: Path) -> None:
    first, again = (update_of(tmp_path / "a", TOP) for _ in range(2))
    np.testing.assert_array_equal(first[CODED], again[CODED])


def test_what_was_left_out_joins_the_next_update(tmp_path: Path) -> None:
    base = initial_weights(*TOP)
    alone = update_of(tmp_path / "b", TOP, number=2)
    update_of(tmp_path / "a", TOP, number=1)
    after_one = update_of(tmp_path / "a", TOP, number=2)
    one, two = (moved_by(base, coded, codec_of(TOP)) for coded in (alone, after_one))
    assert any(not np.array_equal(one[name], two[name]) for name in base)
