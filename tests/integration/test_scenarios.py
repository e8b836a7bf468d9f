import json
from typing import Any

import pytest
from safetensors.numpy import load_file

from common.schema import SettingsError


def test_a_result_tells_who_missed_which_round_and_why(runner: Any) -> None:
    scenario = "simulation.scenario={arrive:{south:2},leave:{north:2}}"
    result = runner("scenario", scenario, "privacy=none")
    assert result["status"] == "partial"
    told = [(record["participants"], record["missing"]) for record in result["rounds"]]
    assert told == [
        (["north"], {"south": "scenario: arrives in round 2"}),
        (["south"], {"north": "scenario: left in round 2"}),
    ]
    # Where nobody is poisoned the model is that of the sites that were there.
    again = runner("again", scenario, "privacy=none", "simulation.engine=ray")
    assert runner.bytes_of("scenario") == runner.bytes_of("again")
    assert again["rounds"][0]["missing"] == told[0][1]


def test_a_poisoned_site_moves_a_mean_and_not_a_median(runner: Any) -> None:
    west = "+simulation.hospitals.west={scanner:flair_3t,patients:24}"
    plain = [west, "privacy=none", "rounds=1"]
    poison = [*plain, "simulation.scenario={poisoned:{west:boosted},strength:1e6}"]

    def largest(name: str, *overrides: str) -> float:
        result = runner(name, *overrides)
        assert result["status"] == "completed"
        weights = load_file(runner.folder / name / "model.safetensors")
        return float(max(abs(array).max() for array in weights.values()))

    mean, robust = largest("mean", *plain), largest("robust", *plain, "strategy=fedmedian")
    assert largest("spoilt", *poison) > 10 * mean
    assert largest("stood", *poison, "strategy=fedmedian") < 1.1 * robust
    told = (runner.folder / "stood" / "events.jsonl").read_text().splitlines()
    events = [json.loads(line) for line in told]
    assert [e["site"] for e in events if e["event"] == "poisoned"] == ["west"]


@pytest.mark.parametrize(
    ("scenario", "more", "told"),
    [
        ("{poisoned:{est:noise}}", "privacy=none", "names est, which are no sites"),
        ("{poisoned:{north:noise}}", "compression=int4", "set compression=none"),
    ],
)
def test_a_scenario_that_does_not_fit_the_study_is_refused(
    runner: Any, scenario: str, more: str, told: str
) -> None:
    with pytest.raises(SettingsError, match=told):
        runner("refused", f"simulation.scenario={scenario}", more)
