import pytest
import torch

from simulation.benchmark.parallel import ON_A_GPU, rows_of


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_every_row_is_measured_or_says_why_not() -> None:
    rows = rows_of(quick=True)
    assert all(row.keys() == rows[0].keys() for row in rows)
    measured = [row for row in rows if not row["why_not"]]
    assert measured[0]["name"] == "cores x1"
    assert measured[0]["faster"] == 1.0
    for row in measured:
        assert float(row["round_s"]) > 0
        faster = float(measured[0]["round_s"]) / float(row["round_s"])
        assert float(row["faster"]) == pytest.approx(faster)
    others = {row["name"]: row["why_not"] for row in rows if row["why_not"]}
    assert others == {f"gpu x{actors}": "PyTorch sees no GPU here" for actors in ON_A_GPU}
