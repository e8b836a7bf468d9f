import torch
from hypothesis import given
from hypothesis import strategies as st

from common.seeding import generator, secret_generator, seed

labels = st.lists(st.one_of(st.integers(0, 99), st.text(max_size=5)), max_size=4)


@given(st.integers(0, 2**31), labels)
def test_equal_labels_give_equal_seeds_in_range(base: int, names: list[str | int]) -> None:
    assert seed(base, *names) == seed(base, *names)
    assert 0 <= seed(base, *names) < 2**63


def test_order_and_borders_of_labels_count() -> None:
    assert seed(0, "a", "b") != seed(0, "b", "a")
    assert seed(0, "ab", "c") != seed(0, "a", "bc")
    assert seed(1, "a") != seed(0, "a")


def test_generators_of_one_seed_draw_the_same() -> None:
    assert generator(5).initial_seed() == generator(5).initial_seed() == 5


def _drawn(start: torch.Generator) -> list[float]:
    return torch.randn(700, generator=start).tolist()


def test_secret_generators_repeat_by_key_and_labels_alone() -> None:
    key = b"k" * 32
    assert _drawn(secret_generator(key, 1, "n")) == _drawn(secret_generator(key, 1, "n"))
    assert _drawn(secret_generator(key, 1, "n")) != _drawn(secret_generator(key, 2, "n"))
    assert _drawn(secret_generator(key, 1, "n")) != _drawn(secret_generator(b"l" * 32, 1, "n"))


def test_no_seed_of_32_bits_starts_the_secret_generator() -> None:
    state = secret_generator(b"k" * 32, "noise").get_state()
    words = state[24 : 24 + 8 * 624].view(torch.int64)
    # manual_seed fills the state by a recurrence from its first word; a secret state keeps none.
    by_seed = torch.Generator().manual_seed(int(words[0])).get_state()
    assert int(by_seed[24:32].view(torch.int64)) == int(words[0])
    assert not torch.equal(by_seed[24 : 24 + 8 * 624].view(torch.int64), words)


def test_secret_noise_is_standard_normal() -> None:
    noise = torch.randn(20000, generator=secret_generator(b"k" * 32, "noise"))
    assert abs(float(noise.mean())) < 0.03
    assert abs(float(noise.std()) - 1) < 0.03
