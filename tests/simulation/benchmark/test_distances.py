"""The distance that drops are predicted from orders scanners by what they do to one patient."""

import pytest

from common.config import load_study
from common.contract import Profile
from common.newcomer import MEASURE
from simulation.benchmark.distances import STUDY, known_distances, profile_at, ranks, scanners
from simulation.hospitals import Hospital

PAIRED, PATIENTS = 2, 12
LEAST_RANK = 0.8
"""What the distances must reach over the pairs of twelve scanners."""

Known = dict[tuple[str, str], float]


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> tuple[Known, dict[str, Profile]]:
    """Return how far apart the scanners are, and what a hospital with each tells."""
    folder = tmp_path_factory.mktemp("scanners")
    profiles = {
        one.name: profile_at(folder, Hospital(name=one.name, scanner=one, patients=PATIENTS))
        for one in scanners()
    }
    return known_distances(folder, PAIRED), profiles


def test_the_distances_of_twelve_hospitals_order_their_scanners(
    measured: tuple[Known, dict[str, Profile]],
) -> None:
    known, profiles = measured
    assert len(profiles) == 12
    assert len(known) == 66
    assert ranks(profiles, known, load_study(list(STUDY)))[MEASURE] >= LEAST_RANK


def test_profiles_of_other_hospitals_do_not(measured: tuple[Known, dict[str, Profile]]) -> None:
    known, profiles = measured
    names, study = sorted(profiles), load_study(list(STUDY))
    for turn in range(1, len(names)):
        others = [*names[turn:], *names[:turn]]
        moved = {name: profiles[other] for name, other in zip(names, others, strict=True)}
        assert ranks(moved, known, study)[MEASURE] < LEAST_RANK / 2, turn
