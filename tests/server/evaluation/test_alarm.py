"""A site whose images change is named, and one whose images stay is named as rarely as was said."""

import math

import numpy as np
import pytest
from scipy.stats import binom

from common.contract import Profile
from common.profile import sizes_of
from server.evaluation.alarm import (
    FALSE_ALARM_RATE,
    PARTS,
    alarm_of,
    changes_of,
    scores_of,
    unchanged,
)
from tests.builders import SLICES, study_from

STUDY = study_from(*SLICES, "rounds=8", "evaluation=shift", "evaluation.profile_every=1")
ROUNDS = range(1, 9)
NUMBERS = sum(sizes_of(STUDY)[part] for part in PARTS)


def told(
    draws: np.random.Generator, noise_std: float, moved: float = 0.0, patients: int = 40
) -> Profile:
    """Return a profile whose image parts are `moved` in all from those of an unmoved one."""
    parts = {
        name: (
            (moved / math.sqrt(NUMBERS) if name in PARTS else draws.random())
            + draws.normal(0, noise_std, size)
        ).tolist()
        for name, size in sizes_of(STUDY).items()
    }
    return Profile(patients=patients, noise_std=noise_std, parts=parts)


def rounds_of(seed: int, noise_std: float, moved: float = 0.0) -> dict[int, dict[str, Profile]]:
    """Return what two sites tell; the images of `b` are others from round 5 on."""
    draws = np.random.default_rng(seed)
    return {
        number: {
            "a": told(draws, noise_std),
            "b": told(draws, noise_std, moved if number >= 5 else 0.0),
        }
        for number in ROUNDS
    }


@pytest.mark.parametrize("noise_std", [0.0, 0.01])
def test_a_site_whose_images_change_is_named_with_the_round_and_no_other(noise_std: float) -> None:
    found = alarm_of(rounds_of(0, noise_std, moved=0.2), STUDY, sites=2)
    assert found["false_alarm_rate"] == FALSE_ALARM_RATE
    assert {site: of["round"] for site, of in found["sites"].items()} == {"a": None, "b": 5}
    far = found["sites"]["b"]["distance_after"]
    assert far["4"] == pytest.approx(0, abs=0.06)
    assert far["5"] == pytest.approx(0.2, abs=0.06)


def test_alarms_without_a_change_are_as_rare_in_the_whole_study_as_was_said() -> None:
    studies = 1000
    alarms = sum(
        any(of.round is not None for of in changes_of(rounds_of(i, 0.1), STUDY, 2).values())
        for i in range(studies)
    )
    assert alarms <= binom.ppf(0.999, studies, FALSE_ALARM_RATE)


def test_a_change_that_noise_hides_in_one_round_is_found_over_several() -> None:
    # In one round a difference of so many deviations is found in one study of five or less.
    found = [changes_of(rounds_of(i, 0.1, moved=1.0), STUDY, 2)["b"].round for i in range(200)]
    assert sum(number == 5 for number in found) < 120
    assert sum(number is not None for number in found) >= binom.ppf(0.001, 200, 0.9)


def test_the_runs_without_a_change_are_those_of_noise_on_every_number() -> None:
    stds, draws = [0.1, 0.2, 0.05], np.random.default_rng(3)
    first = draws.normal(0, stds[0], (20_000, 1, NUMBERS))
    later = draws.normal(0, 1, (20_000, 2, NUMBERS)) * np.array(stds[1:])[:, None]
    naive = scores_of(np.sum((later - first) ** 2, axis=-1), NUMBERS, stds)
    ours = unchanged(NUMBERS, stds, np.random.default_rng(4))
    for found in (naive, ours):
        assert found.mean(0) == pytest.approx(0, abs=0.05)
        assert found.std(0) == pytest.approx(1, abs=0.05)
    assert np.corrcoef(ours.T)[0, 1] == pytest.approx(np.corrcoef(naive.T)[0, 1], abs=0.03)
    np.testing.assert_allclose(
        np.quantile(ours, 0.999, axis=0), np.quantile(naive, 0.999, axis=0), atol=0.4
    )


def test_a_site_that_told_once_is_not_judged() -> None:
    rounds = rounds_of(0, 0.0)
    once = {1: rounds[1], 2: {"a": rounds[2]["a"]}}
    assert set(changes_of(once, STUDY, 2)) == {"a"}
    assert alarm_of({8: rounds[8]}, STUDY, 2) == {}
