import numpy as np
import pytest
from scipy import stats

from common.contract import MAX_PATIENTS, Profile
from common.domain import domain_of
from common.newcomer import MEASURE, joined_told
from common.profile import sizes_of
from common.tasks.task import Metric
from server.evaluation.plane import places_of
from server.evaluation.prediction import (
    drop_of,
    far_from_others,
    floors_of,
    mixture_of,
    over_time,
    scored,
    scored_outside,
    told_by_profiles,
)
from tests.builders import SLICES, study_from

STUDY = study_from(*SLICES)
DICE = Metric(True, "", "overlap")


def test_a_drop_is_against_the_mean_of_the_others() -> None:
    values = {"a": 0.8, "b": 0.6, "c": 0.1}
    assert drop_of("c", values, DICE) == pytest.approx(0.6)
    assert drop_of("c", values, Metric(False, "mm", "distance")) == pytest.approx(-0.6)


def test_a_mixture_is_the_profile_of_all_patients() -> None:
    one = Profile(patients=10, noise_std=0.3, parts={"x": [1.0, 0.0]})
    other = Profile(patients=30, noise_std=0.1, parts={"x": [0.0, 1.0]})
    both = mixture_of([one, other])
    assert both.patients == 40
    assert both.parts == {"x": [0.25, 0.75]}
    assert both.noise_std == pytest.approx(np.hypot(0.25 * 0.3, 0.75 * 0.1))


def at(brightness: float, noise_std: float = 0.0, patients: int = 10) -> Profile:
    sizes = sizes_of(STUDY)
    parts = {name: [0.0] * size for name, size in sizes.items()}
    parts["appearance"] = [brightness] * sizes["appearance"]
    parts["strata"] = [1.0] + [0.0] * (sizes["strata"] - 1)
    parts["intensity"] = [1.0] + [0.0] * (sizes["intensity"] - 1)
    return Profile(patients=patients, noise_std=noise_std, parts=parts)


PROFILES = {f"s{i}": at(place) for i, place in enumerate([0.0, 0.01, 0.02, 0.05, 0.09, 0.2])}
VALUES = {"s0": 0.8, "s1": 0.81, "s2": 0.79, "s3": 0.77, "s4": 0.7, "s5": 0.5}


def test_a_sites_line_is_made_as_if_it_did_not_exist() -> None:
    told = scored(PROFILES, VALUES, DICE)["sites"]["s5"]
    known = [name for name in PROFILES if name != "s5"]
    profiles, values = {n: PROFILES[n] for n in known}, {n: VALUES[n] for n in known}
    far = [far_from_others(name, profiles) for name in known]
    line = stats.linregress(far, [drop_of(name, values, DICE) for name in known])
    assert told["predicted"] == pytest.approx(line.intercept + line.slope * told["distance"])
    changed = scored(PROFILES, {**VALUES, "s5": 0.1}, DICE)["sites"]["s5"]
    assert changed["predicted"] == told["predicted"]
    assert changed["drop"] > told["drop"]


def test_a_left_out_site_is_asked_of_as_the_study_without_it_would_ask() -> None:
    whole = scored(PROFILES, VALUES, DICE)["sites"]
    without = {"s5": {name: value - 0.1 for name, value in VALUES.items()} | {"s5": 0.2}}
    found = scored_outside(whole, without, DICE)
    assert found is not None
    asked = scored(PROFILES, without["s5"], DICE)["sites"]["s5"]
    assert found["sites"] == {"s5": {name: of for name, of in asked.items() if name != "others"}}
    assert scored_outside(whole, {}, DICE) is None


def test_a_newcomer_is_held_against_all_sites_that_told_both() -> None:
    told = told_by_profiles(PROFILES, {**VALUES, "s9": 0.1}, STUDY, DICE)["newcomer"]
    joined = joined_told(told)
    assert joined.mean == pytest.approx(np.mean(list(VALUES.values())))
    assert joined.everybody.parts == {MEASURE: mixture_of([*PROFILES.values()]).parts[MEASURE]}
    expected = {
        name: (far_from_others(name, PROFILES), drop_of(name, VALUES, DICE)) for name in VALUES
    }
    assert joined.sites == expected
    # Each of two could take itself out of the mean.
    few = dict(list(VALUES.items())[:2])
    assert "newcomer" not in told_by_profiles(PROFILES, few, STUDY, DICE)


def test_without_a_line_nothing_is_told() -> None:
    few = {name: PROFILES[name] for name in ("s0", "s1", "s2")}
    assert scored(few, {name: VALUES[name] for name in few}, DICE)["sites"] == {}
    equal = {name: at(0.1) for name in VALUES}
    assert scored(equal, VALUES, DICE)["sites"] == {}


def test_the_largest_cohorts_that_can_be_told_have_a_mixture() -> None:
    huge = {name: at(0.1, patients=MAX_PATIENTS) for name in ("a", "b", "c")}
    assert told_by_profiles(huge, VALUES, STUDY, DICE)["prediction"]["sites"] == {}


def test_equal_sites_show_the_floor_through_noise_alone() -> None:
    silent = floors_of(list(PROFILES.values()), STUDY)
    assert set(silent.values()) == {0.0}
    noisy = floors_of([at(0.1, noise_std=0.05)] * 4, STUDY)
    assert noisy["intensity"] > 0.1
    assert noisy["frechet"] > 0


def test_distances_are_told_as_a_map_and_as_means_too() -> None:
    told = told_by_profiles(PROFILES, VALUES, STUDY, DICE)
    assert told["map"] == {"measure": MEASURE, "sites": places_of(told["distance"][MEASURE])}
    between = [v for of in told["distance"]["mmd"].values() for v in of.values()]
    assert told["distance_mean"]["mmd"] == pytest.approx(np.mean(between))
    two = {name: PROFILES[name] for name in ("s0", "s1")}
    assert "map" not in told_by_profiles(two, {}, STUDY, DICE)
    after = over_time({2: PROFILES}, STUDY)
    assert after["distance_mean_after"] == {"2": told["distance_mean"]}
    assert over_time({}, STUDY) == {}


def test_the_domain_is_of_the_patients_of_all_sites_together() -> None:
    told = told_by_profiles(PROFILES, VALUES, STUDY, DICE)["domain"]
    everybody = mixture_of(list(PROFILES.values()))
    assert told == domain_of(everybody).told()
    assert told["patients"] == sum(profile.patients for profile in PROFILES.values())
