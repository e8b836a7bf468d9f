"""The training curve of a small study: a change that moves it changes the arithmetic of training.

After a change that is meant to move it:  python -m pytest tests/integration/test_golden_curve.py
prints the new curve in its failure; put it into golden_smoke.json and say why in the commit.
"""

import json
from pathlib import Path
from typing import Any

import pytest

GOLDEN = Path(__file__).with_name("golden_smoke.json")


def test_the_curve_is_the_golden_one(runner: Any) -> None:
    result = runner("golden", "privacy=none", "rounds=3", "evaluate_every=3")
    curve = {
        site: [record["sites"][site]["train_loss"] for record in result["rounds"]]
        for site in ("north", "south")
    }
    golden = json.loads(GOLDEN.read_text())
    assert curve.keys() == golden.keys()
    for site, losses in golden.items():
        # Another processor may round another way; an error in the arithmetic is far larger.
        assert curve[site] == pytest.approx(losses, rel=1e-4), json.dumps(curve)
