import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from client.training import AUGMENT, FORWARD, GRADIENT, STEP
from common.schema import SettingsError
from simulation.profile import phases_s, show_profile
from simulation.run import composed
from tests.hospitals import Hospitals

SHORT = st.floats(0, 10)


@given(SHORT, SHORT, SHORT, SHORT, SHORT)
def test_the_parts_are_the_whole(a: float, f: float, b: float, s: float, rest: float) -> None:
    round_s = a + f + b + s + rest
    found = phases_s({AUGMENT: a, FORWARD: f, GRADIENT: a + f + b, STEP: s}, round_s)
    assert list(found.values()) == pytest.approx([a, f, b, s, rest], abs=1e-9)
    assert sum(found.values()) == pytest.approx(round_s)


def test_a_profile_tells_steps_parts_and_operators_and_leaves_a_trace(
    tmp_path: Path, hospitals: Hospitals
) -> None:
    hospitals.given(tmp_path / "run", "experiment=smoke")
    console = Console(record=True, width=120)
    show_profile(composed(tmp_path / "run", ["experiment=smoke"]), console)
    told = console.export_text()
    assert "a round at north: 3 steps" in told
    assert "convolution" in told
    trace = json.loads((tmp_path / "run" / "trace.json").read_text())
    names = [event.get("name") for event in trace["traceEvents"]]
    assert {AUGMENT, FORWARD, GRADIENT, STEP} <= set(names)
    assert names.count(STEP) >= 3
    assert not (tmp_path / "run" / "result.json").exists()


def test_a_run_that_has_begun_is_left_alone(tmp_path: Path) -> None:
    run = composed(tmp_path / "run", ["experiment=smoke"])
    run.folder.mkdir()
    (run.folder / "checkpoint.safetensors").touch()
    with pytest.raises(SettingsError, match="holds a run"):
        show_profile(run, Console(quiet=True))


def test_a_hospital_that_does_not_train_is_told(tmp_path: Path, hospitals: Hospitals) -> None:
    settings = ["experiment=smoke", "strategy.tested=[north]"]
    hospitals.given(tmp_path / "run", *settings)
    run = composed(tmp_path / "run", settings)
    with pytest.raises(SettingsError, match="north does not train: study"):
        show_profile(run, Console(quiet=True))
