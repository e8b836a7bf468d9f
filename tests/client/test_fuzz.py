import os

from tests.client.fuzz import KINDS, LONGEST_S, MOST_BYTES, run_apart

EXAMPLES = int(os.environ.get("WARDROUND_FUZZ", "80"))
"""Of each kind. All of them: make fuzz."""


def test_a_damaged_file_is_read_right_or_refused_by_name() -> None:
    """Anything else than a named error ends the process, and so the test."""
    outcomes = run_apart(KINDS, EXAMPLES)
    assert [found.kind for found in outcomes] == list(KINDS)
    for found in outcomes:
        assert found.read > 0
        assert found.refused > 0
        assert found.peak_bytes < MOST_BYTES
        assert found.slowest_s < LONGEST_S
