import numpy as np
import pytest

from simulation.outlook import Outlook, followed_up, lesions_ml
from simulation.phantom import CaseMix, make_anatomy

SMALL = {"shape": (48, 48, 12), "spacing_mm": (4.0, 4.0, 2.5)}


def anatomies(count: int) -> list[object]:
    mix = CaseMix(lesions_mean=20.0)
    return [make_anatomy(mix, np.random.default_rng(k), **SMALL) for k in range(count)]  # type: ignore[arg-type]


def test_nobody_is_followed_without_an_outlook() -> None:
    (anatomy,) = anatomies(1)
    assert followed_up(anatomy, None, np.random.default_rng(0)) == {}  # type: ignore[arg-type]


def test_times_are_exponential_by_the_hazard_that_the_lesions_give() -> None:
    (anatomy,) = anatomies(1)
    outlook = Outlook(hazard_a_year=0.2, log_hazard_a_ml=0.1, lost_a_year=0.0, follow_up_years=1e6)
    rng = np.random.default_rng(1)
    rows = [followed_up(anatomy, outlook, rng) for _ in range(2000)]  # type: ignore[arg-type]
    hazard = 0.2 * np.exp(0.1 * (lesions_ml(anatomy) - outlook.usual_ml))  # type: ignore[arg-type]
    assert {row["event"] for row in rows} == {"1"}
    assert np.mean([float(row["time"]) for row in rows]) == pytest.approx(1 / hazard, rel=0.1)
    assert float(rows[0]["log_hazard"]) == pytest.approx(np.log(hazard / 0.2), abs=1e-3)


def test_nobody_is_followed_longer_than_the_hospital_does() -> None:
    outlook = Outlook(follow_up_years=2.0, hazard_a_year=0.3)
    rows = [
        followed_up(anatomy, outlook, np.random.default_rng(k))  # type: ignore[arg-type]
        for k, anatomy in enumerate(anatomies(8))
    ]
    times = [float(row["time"]) for row in rows]
    assert max(times) <= 2.0
    assert all(row["event"] == "0" for row, time in zip(rows, times, strict=True) if time == 2.0)
    assert len({row["log_hazard"] for row in rows}) > 1
