"""A result as server/records.py writes it, with numbers from a seed."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

METRICS = {
    "dice": {"higher_is_better": True, "unit": "", "meaning": "Overlap of the two masks."},
    "hd95": {"higher_is_better": False, "unit": "mm", "meaning": "Distance of the two borders."},
}

Make = Callable[..., dict[str, Any]]


def _estimates(sites: Sequence[str], random: np.random.Generator) -> dict[str, Any]:
    def draw(scale: float) -> dict[str, float]:
        value = scale * float(random.uniform(0.2, 0.9))
        return {"value": value, "low": 0.9 * value, "high": 1.1 * value, "n": 6}

    return {site: {"dice": draw(1.0), "hd95": draw(10.0)} for site in sites}


def _summary(of_sites: dict[str, Any]) -> dict[str, Any]:
    values = {m: {s: of[m]["value"] for s, of in of_sites.items()} for m in METRICS}
    worst = {
        m: (min if METRICS[m]["higher_is_better"] else max)(of, key=lambda site: of[site])
        for m, of in values.items()
    }
    return {
        "mean": {m: float(np.mean(list(of.values()))) for m, of in values.items()},
        "worst": {m: values[m][worst[m]] for m in METRICS},
        "worst_site": worst,
        "sites": of_sites,
    }


def _account(round_: int) -> dict[str, Any]:
    return {
        "unit": "patient",
        "epsilon": 0.5 * round_,
        "epsilon_image": 0.5 * round_,
        "epsilon_life": 0.7 * round_,
        "delta": 1e-3,
        "noise_multiplier": 1.1,
        "sample_rate": 0.1,
        "steps": 10 * round_,
    }


def _part(before: Any, private: bool, round_: int) -> dict[str, Any]:
    return {
        "seconds": 1.2,
        "bytes_sent": 1000,
        "bytes_received": 2000,
        "steps": 10,
        "train_loss": None if private else 1 / round_,
        "before": before,
        "privacy": _account(round_) if private else None,
    }


def make_result(
    sites: Sequence[str] = ("st-a", "st-b", "st-c"),
    rounds: int = 4,
    private: bool = True,
    baselines: Sequence[str] = ("pooled", "local", "ensemble"),
) -> dict[str, Any]:
    random = np.random.default_rng(0)
    records = []
    for round_ in range(1, rounds + 1):
        before = _estimates(sites, random)
        parts = {site: _part(before[site], private, round_) for site in sites}
        record = {"round": round_, "participants": list(sites), "missing": {}, "seconds": 3.4}
        records.append({**record, "sites": parts})
    about = {"patients_train": 20, "patients_held_out": 6, "images_train": 120, "bad_files": 0}
    mechanism = "dp_sgd" if private else "none"
    return {
        "schema_version": 1,
        "status": "completed",
        "reason": None,
        "study": {"name": "a study", "rounds": rounds, "privacy": {"mechanism": mechanism}},
        "study_digest": "ab" * 32,
        "headline": "dice",
        "metrics": METRICS,
        "sites": {site: {"site": site, **about} for site in sites},
        "rounds": records,
        "initial": _summary(_estimates(sites, random)),
        "final": {**_summary(_estimates(sites, random)), "missing": {}},
        "best": {"round": rounds, "value": 0.8},
        "privacy": {site: _account(rounds) for site in sites} if private else {},
        "baselines": {name: _summary(_estimates(sites, random)) for name in baselines},
        "seconds": 12.3,
        "software": {"wardround": "0.1.0", "torch": "2.13.0"},
    }


@pytest.fixture
def make() -> Make:
    """The function that makes a result of the asked sites and rounds."""
    return make_result
