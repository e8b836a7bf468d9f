from typing import Any


def without_times(value: Any) -> Any:
    """Return a result without what a clock put into it."""
    if isinstance(value, dict):
        return {k: without_times(v) for k, v in value.items() if k != "seconds"}
    return [without_times(v) for v in value] if isinstance(value, list) else value


def test_ray_and_in_process_give_the_same_bytes(runner: Any) -> None:
    # With noise, and with what a site keeps of the steps that it did not send.
    study = ("privacy=patient_eps8", "compression=top")
    one = runner("one", *study)
    two = runner("two", *study, "simulation.engine=ray", "simulation.actors=2")
    assert one["status"] == two["status"] == "completed"
    assert runner.bytes_of("one") == runner.bytes_of("two")
    assert without_times(one) == without_times(two)
    assert one["privacy"].keys() == {"north", "south"}
