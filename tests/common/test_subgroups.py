import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.subgroups import check_subgroups, group_of, groups_of

AGE = {"age": ["40", "65"]}


def test_words_are_groups_and_numbers_are_between_them() -> None:
    assert groups_of({"sex": ["F", "M"], **AGE}) == [
        "sex=F",
        "sex=M",
        "age<40",
        "age=40-65",
        "age>=65",
    ]


@given(age=st.floats(0, 120))
def test_every_number_is_in_one_band_from_its_edge_on(age: float) -> None:
    expected = "age<40" if age < 40 else "age=40-65" if age < 65 else "age>=65"
    assert group_of("age", AGE["age"], str(age)) == expected


@pytest.mark.parametrize("told", [None, "old", "X", "nan", "inf"])
def test_what_a_manifest_does_not_say_is_in_no_group(told: str | None) -> None:
    assert group_of("age", AGE["age"], told) is None
    assert group_of("sex", ["F", "M"], told) is None


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"sex": []}, "names no groups"),
        ({"sex": ["F", "F"]}, "each once"),
        ({"a b": ["F"]}, "names no groups"),
        ({"age": ["65", "40"]}, "bands out of order"),
        ({"age": ["40", "nan"]}, "bands out of order"),
        ({"age": ["inf"]}, "bands out of order"),
        ({"sex": ["x" * 40]}, "no short word"),
        ({"site": [f"s{n}" for n in range(40)]}, "40 groups; 32 at most"),
    ],
)
def test_subgroups_that_cannot_be_told_apart_are_refused(
    wrong: dict[str, list[str]], told: str
) -> None:
    with pytest.raises(ValueError, match=told):
        check_subgroups(wrong)
