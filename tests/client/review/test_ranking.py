"""The images that want a person most come first."""

from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from client.manifest import Row
from client.review.page import Review
from client.review.ranking import BY_UNSURE, BY_WORST, Ranked, in_order, look, rank
from tests.client.review.conftest import Made

FIGURE = st.one_of(st.none(), st.floats(0, 1))


def case(number: int, agreement: float | None, entropy: float | None) -> Ranked:
    row = Row(image=Path(f"{number}.png"), patient=str(number))
    return Ranked(number=number, row=row, why_not="", entropy=entropy, agreement=agreement, said="")


@given(st.lists(st.tuples(FIGURE, FIGURE), max_size=8))
def test_the_worst_and_the_least_sure_are_first_and_what_is_unknown_last(
    figures: list[tuple[float | None, float | None]],
) -> None:
    cases = [case(number, *figure) for number, figure in enumerate(figures)]
    worst = [of.agreement for of in in_order(cases, BY_WORST)]
    unsure = [of.entropy for of in in_order(cases, BY_UNSURE)]
    known = [value for value in worst if value is not None]
    assert worst == sorted(known) + [None] * (len(worst) - len(known))
    known = [value for value in unsure if value is not None]
    assert unsure == sorted(known, reverse=True) + [None] * (len(unsure) - len(known))


def dice(review: Review, number: int) -> float:
    seen = look(review.cases[number].row, review.passes)
    assert seen.answer.classes_S is not None
    assert seen.truth_S is not None
    found, true = seen.answer.classes_S > 0, seen.truth_S > 0
    return float(2 * np.sum(found & true) / (found.sum() + true.sum()))


def test_agreement_is_the_overlap_with_the_sites_mask(reviewed: Made) -> None:
    review = reviewed("volumes")
    for ranked in review.cases:
        assert ranked.agreement is not None
        np.testing.assert_allclose(ranked.agreement, dice(review, ranked.number))


def test_agreement_is_the_probability_of_the_sites_label(reviewed: Made) -> None:
    review = reviewed("pictures")
    for ranked in review.cases:
        scores = look(ranked.row, review.passes).answer.scores
        assert ranked.agreement == scores[str(ranked.row.label)]
        assert ranked.said == max(scores, key=lambda name: scores[name])


def test_an_image_that_cannot_be_read_says_why(reviewed: Made) -> None:
    review = reviewed("pictures")
    row = review.cases[0].row
    row.image.write_bytes(b"")
    found = rank(0, row, review.passes)
    assert (found.entropy, "is empty (0 bytes)" in found.why_not) == (None, True)


def test_agreement_of_several_labels_counts_those_that_are_not_there(reviewed: Made) -> None:
    review = reviewed("labels")
    for ranked in review.cases:
        mass, fluid = look(ranked.row, review.passes).answer.scores.values()
        there = ranked.row.label == "mass|fluid"
        expected = (mass + fluid) / 2 if there else 1 - (mass + fluid) / 2
        assert ranked.agreement is not None
        np.testing.assert_allclose(ranked.agreement, expected)
