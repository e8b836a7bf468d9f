from typing import Any

import pytest


def without_times(value: Any) -> Any:
    """Return a result without what a clock put into it."""
    if isinstance(value, dict):
        return {k: without_times(v) for k, v in value.items() if k != "seconds"}
    return [without_times(v) for v in value] if isinstance(value, list) else value


@pytest.mark.parametrize(
    ("privacy", "compression"),
    [("patient_eps8", "none"), ("none", "top")],
)
def test_ray_and_in_process_give_the_same_bytes(
    runner: Any, privacy: str, compression: str
) -> None:
    study = (f"privacy={privacy}", f"compression={compression}")
    one = runner("one", *study)
    two = runner("two", *study, "simulation.engine=ray", "simulation.actors=2")
    assert one["status"] == two["status"] == "completed"
    assert runner.bytes_of("one") == runner.bytes_of("two")
    assert without_times(one) == without_times(two)
    assert bool(one["privacy"]) == (privacy != "none")
