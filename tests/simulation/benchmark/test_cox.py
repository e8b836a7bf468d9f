import pytest

from simulation.benchmark.cox import CENTRES, lung, rows_of

pytest.importorskip("lifelines", reason="pip install 'wardround[tables]'")


def test_every_institution_is_of_one_centre_and_centres_are_alike_in_size() -> None:
    table = lung()
    assert (table.groupby("inst")["centre"].nunique() == 1).all()
    sizes = table["centre"].value_counts()
    assert len(sizes) == CENTRES
    assert sizes.max() < 1.5 * sizes.min()


def test_the_federation_ranks_the_patients_of_a_table_nearly_as_cox_does() -> None:
    ours, cox = rows_of(20)
    assert cox["c_index"] > 0.58
    assert ours["c_index"] > cox["c_index"] - 0.03
