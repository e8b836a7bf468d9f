from simulation.benchmark.models import QUICK, measure


def test_every_network_has_a_row_and_a_private_step_takes_longer_than_nothing() -> None:
    rows = {row["name"]: row for row in measure(quick=True)}
    assert set(rows) == {*QUICK, "unet at 128"}
    for row in rows.values():
        assert float(row["step_ms"]) > 0
        assert float(row["private"]) > 0.2
        assert float(row["predict_s"]) > 0
    assert rows["unet at 128"]["weights"] == rows["unet"]["weights"]
