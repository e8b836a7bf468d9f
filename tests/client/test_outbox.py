import stat
from pathlib import Path

import pytest
import torch

from client.outbox import KEY, KEY_BYTES, Kept, Outbox, site_key


def kept(release: str, value: float) -> Kept:
    return Kept(
        asked=f"{release}, asked",
        release=release,
        body={"site": "st-a", "train_loss": 0.1 + 0.2, "estimates": {}, "privacy": None},
        weights={"w": torch.full((2, 3), value), "n": torch.tensor(2**53 + 1)},
        local={"bn.running_mean": torch.tensor([value])},
    )


def test_what_is_kept_comes_out(tmp_path: Path) -> None:
    Outbox(tmp_path).store(kept("one", 0.1))
    found = Outbox(tmp_path).last()
    assert found is not None
    expected = kept("one", 0.1)
    assert (found.asked, found.release, found.body) == (
        expected.asked,
        expected.release,
        expected.body,
    )
    for one, two in ((found.weights, expected.weights), (found.local, expected.local)):
        assert {n: (t.dtype, t.tolist()) for n, t in one.items()} == {
            n: (t.dtype, t.tolist()) for n, t in two.items()
        }


def test_only_the_last_answer_is_kept(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path)
    assert outbox.last() is None
    outbox.store(kept("one", 1.0))
    outbox.store(kept("two", 2.0))
    found = outbox.last()
    assert found is not None
    assert found.release == "two"
    assert len(list(tmp_path.iterdir())) == 1


def test_a_key_is_32_secret_bytes_that_stay(tmp_path: Path) -> None:
    key = site_key(tmp_path / "state")
    assert len(key) == KEY_BYTES == 32
    assert site_key(tmp_path / "state") == key
    assert stat.S_IMODE((tmp_path / "state" / KEY).stat().st_mode) == 0o600
    assert [path.name for path in (tmp_path / "state").iterdir()] == [KEY]


def test_every_site_has_a_key_of_its_own(tmp_path: Path) -> None:
    assert site_key(tmp_path / "a") != site_key(tmp_path / "b")


@pytest.mark.parametrize("length", [0, 31, 33])
def test_a_key_of_another_length_is_refused(tmp_path: Path, length: int) -> None:
    (tmp_path / KEY).write_bytes(b"k" * length)
    with pytest.raises(ValueError, match=f"holds {length} bytes"):
        site_key(tmp_path)
