from hypothesis import given
from hypothesis import strategies as st

from common.seeding import generator, secret_seed, seed

labels = st.lists(st.one_of(st.integers(0, 99), st.text(max_size=5)), max_size=4)


@given(st.integers(0, 2**31), labels)
def test_equal_labels_give_equal_seeds_in_range(base: int, names: list[str | int]) -> None:
    assert seed(base, *names) == seed(base, *names)
    assert 0 <= seed(base, *names) < 2**63


def test_order_and_borders_of_labels_count() -> None:
    assert seed(0, "a", "b") != seed(0, "b", "a")
    assert seed(0, "ab", "c") != seed(0, "a", "bc")
    assert seed(1, "a") != seed(0, "a")


def test_secret_seed_depends_on_the_key() -> None:
    assert secret_seed(b"k" * 32, 1, "noise") == secret_seed(b"k" * 32, 1, "noise")
    assert secret_seed(b"k" * 32, 1, "noise") != secret_seed(b"l" * 32, 1, "noise")
    assert secret_seed(b"k" * 32, 1, "noise") != secret_seed(b"k" * 32, 2, "noise")


def test_generators_of_one_seed_draw_the_same() -> None:
    assert generator(5).initial_seed() == generator(5).initial_seed() == 5
