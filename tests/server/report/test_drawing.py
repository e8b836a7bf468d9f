from matplotlib.figure import Figure

from server.report.drawing import LONGEST_NAME, short, svg


def test_a_long_name_is_cut_and_a_short_one_stays() -> None:
    assert short("st-a") == "st-a"
    cut = short("x" * 99)
    assert len(cut) == LONGEST_NAME
    assert cut.endswith("\N{HORIZONTAL ELLIPSIS}")


def test_two_charts_of_a_page_share_no_identifier_and_their_titles_are_escaped() -> None:
    figure = Figure()
    figure.subplots().plot([0, 1], [0, 1])
    one, other = svg(figure, "one", "<b>"), svg(figure, "other", "b")
    assert 'id="one-' in one
    assert 'id="one-' not in other
    assert 'aria-label="&lt;b&gt;"' in one
