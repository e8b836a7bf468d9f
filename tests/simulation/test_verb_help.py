"""Every verb of wardround-sim answers --help with how it is used, and does nothing else."""

import os
from pathlib import Path
from unittest.mock import patch

import pytest

import simulation.cli
from simulation.verb_help import help_of

VERBS = [*simulation.cli.WITHOUT_STUDY, *simulation.cli.WITH_OPTIONS, *simulation.cli.OF_A_STUDY]


@pytest.mark.parametrize("asked", [["--help"], ["runs/mine", "--help"]])
@pytest.mark.parametrize("verb", VERBS)
def test_a_verb_tells_how_it_is_used(
    verb: str,
    asked: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["wardround-sim", verb, *asked])
    with patch.dict(os.environ), pytest.raises(SystemExit) as end:
        simulation.cli.main()
    assert not end.value.code
    told = capsys.readouterr()
    assert f"Usage: wardround-sim {verb} " in told.out
    assert told.err == ""
    assert list(tmp_path.iterdir()) == []


def test_the_short_word_says_the_same() -> None:
    assert help_of(["resume", "-h"]) == help_of(["resume", "--help"]) is not None


@pytest.mark.parametrize("words", [[], ["--help"], ["experiment=smoke", "--help"], ["resume", "x"]])
def test_what_is_no_verbs_help_is_left_to_others(words: list[str]) -> None:
    assert help_of(words) is None
