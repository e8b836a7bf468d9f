"""docs/recording.py: a recording that is sped up shows all that was written, in order."""

import json
import runpy
from itertools import pairwise
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

RECORDING = runpy.run_path(str(Path(__file__).parents[1] / "docs" / "recording.py"))
PIECES = st.lists(
    st.tuples(st.floats(0, 500), st.text(min_size=1, max_size=5)), min_size=1, max_size=40
).map(sorted)


@given(PIECES)
def test_all_that_was_written_is_shown_in_order_and_in_time(
    pieces: list[tuple[float, str]],
) -> None:
    shown = list(RECORDING["sped_up"](pieces))
    assert "".join(text for _, text in shown) == "".join(text for _, text in pieces)
    apart = [after[0] - before[0] for before, after in pairwise(shown)]
    assert all(gap >= RECORDING["PICTURE_S"] - 1e-9 for gap in apart)
    assert shown[-1][1] == ""


def test_a_recording_is_an_asciicast() -> None:
    head, *events = map(json.loads, RECORDING["cast_of"]([(0.5, "done\r\n")], "ls").splitlines())
    assert head["version"] == 2
    assert [text for _, _, text in events] == ["$ ls\r\n", "done\r\n", ""]
