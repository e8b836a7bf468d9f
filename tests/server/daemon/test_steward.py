"""What the centre's steward grants a study before it gives it up."""

from server.daemon.steward import MOST_FRUITLESS, START_S, start_patience_s


def test_a_process_that_takes_ten_minutes_to_start_is_waited_for_before_its_study_is_given_up() -> (
    None
):
    granted = [start_patience_s(fruitless) for fruitless in range(MOST_FRUITLESS)]
    assert granted[0] == START_S
    assert granted == sorted(granted)
    assert granted[-1] >= 600.0
