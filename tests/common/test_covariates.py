import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.covariates import check_covariates, encoded, width_of
from common.schema import SettingsError
from tests.builders import PICTURES, study_from

ASKED = {"age": [20, 80], "sex": ["F", "M"], "scanner": ["a", "b", "c"]}


@given(age=st.floats(20, 80), sex=st.sampled_from("FM"), scanner=st.sampled_from("abc"))
def test_known_covariates_are_standardised_by_what_the_study_states(
    age: float, sex: str, scanner: str
) -> None:
    found = encoded({"age": str(age), "sex": sex, "scanner": scanner}, ASKED)
    assert len(found) == width_of(ASKED) == 2 + 3 + 4
    assert found[:2] == pytest.approx([0.0, (age - 50) / 30])
    assert found[2:5] == [0.0, float(sex == "F"), float(sex == "M")]
    assert found[5:] == [0.0, *(float(scanner == word) for word in "abc")]


def test_an_unknown_one_is_said_to_be_unknown_and_is_nothing_else() -> None:
    assert encoded({"sex": "M"}, ASKED) == [1.0, 0.0, 0.0, 0.0, 1.0, 1.0, 0.0, 0.0, 0.0]
    assert encoded({}, {"age": [0, 1]}) == [1.0, 0.0]


def test_a_number_beyond_the_range_counts_as_its_end() -> None:
    assert encoded({"age": "110"}, {"age": [20, 80]}) == [0.0, 1.0]
    assert encoded({"age": "-inf"}, {"age": [20, 80]}) == [0.0, -1.0]


@pytest.mark.parametrize("cell", ["old", "nan", ""])
def test_a_cell_that_is_no_number_is_named(cell: str) -> None:
    with pytest.raises(ValueError, match=f"age='{cell}' is no number"):
        encoded({"age": cell}, {"age": [20, 80]})


def test_a_word_that_the_study_does_not_list_is_named() -> None:
    with pytest.raises(ValueError, match="sex='X' is none of F, M"):
        encoded({"sex": "X"}, ASKED)


@pytest.mark.parametrize(
    "values",
    [[80, 20], [20, 20], [1], [], ["F"], ["F", "F"], [1, "M"], [True, False], [0, float("inf")]],
)
def test_what_is_neither_a_range_nor_a_choice_is_refused(values: list[object]) -> None:
    with pytest.raises(ValueError, match="neither a range nor a choice"):
        check_covariates({"age": values}, 99)


def test_covariates_that_do_not_fit_into_an_image_are_refused() -> None:
    check_covariates(ASKED, 9)
    for asked, places in ((ASKED, 8), ({}, 99)):
        with pytest.raises(ValueError, match=f"for images of {places} voxels"):
            check_covariates(asked, places)


def test_what_lies_beside_an_image_is_not_mirrored_with_it() -> None:
    age = "data.covariates={age: [18, 95]}"
    study_from(*PICTURES, age)
    with pytest.raises(SettingsError, match=r"task\.mirrored=true mirrors that"):
        study_from(*PICTURES, age, "task.mirrored=true")
