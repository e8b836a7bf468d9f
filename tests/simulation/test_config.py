from pathlib import Path

import pytest

from common.config import compose
from common.schema import SettingsError
from simulation.config import (
    SCANNERS,
    SimulationConfig,
    data_root,
    named_scanner,
    simulation_of,
)

TWO = [
    "simulation=virtual",
    "+simulation.hospitals.small={scanner: flair_3t, patients: 3}",
    "+simulation.hospitals.large={scanner: flair_1p5t, patients: 9, case_mix: {lesions_mean: 2.0}}",
]


def test_virtual_hospitals_come_largest_first() -> None:
    large, small = simulation_of(compose(TWO)).virtual_hospitals()
    assert (large.name, large.patients, large.scanner.field_t) == ("large", 9, 1.5)
    assert (small.name, small.patients, small.scanner.name) == ("small", 3, "flair_3t")
    assert large.case_mix.lesions_mean == 2.0


def test_hospitals_of_one_size_come_by_name() -> None:
    about = {"scanner": "flair_3t", "patients": 4}
    config = SimulationConfig(hospitals=dict.fromkeys(("b", "c", "a"), about))
    assert [hospital.name for hospital in config.virtual_hospitals()] == ["a", "b", "c"]


def test_a_hospital_of_an_experiment_can_be_taken_out() -> None:
    config = simulation_of(
        compose(["experiment=virtual_mri", "simulation.hospitals.university=null"])
    )
    assert "university" not in [hospital.name for hospital in config.virtual_hospitals()]


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"engine": "dask"}, "simulation.engine='dask'"),
        ({"source": "cloud"}, "simulation.source='cloud'"),
        ({"actors": 0}, "simulation.actors=0"),
        ({"gpus_per_actor": -0.5}, "simulation.gpus_per_actor=-0.5"),
        ({"gpus_per_actor": "all"}, "simulation.gpus_per_actor=all is no share"),
        ({"source": "virtual"}, "simulation.hospitals is empty"),
    ],
)
def test_settings_that_cannot_be_are_refused_by_name(
    settings: dict[str, object], told: str
) -> None:
    with pytest.raises(ValueError, match=told):
        SimulationConfig(**settings)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("about", "told"),
    [
        ({"patients": 3}, "scanner"),
        ({"scanner": "flair_3t", "patients": 3, "beds": 9}, "beds"),
        ({"scanner": "flair_3t", "patients": 3, "case_mix": {"age": 3}}, "age"),
        ({"scanner": "flair_9t", "patients": 3}, "scanner 'flair_9t' is not known"),
    ],
)
def test_a_hospital_that_cannot_be_is_refused_by_name(about: dict[str, object], told: str) -> None:
    with pytest.raises(SettingsError, match=told):
        SimulationConfig(hospitals={"a": about}).virtual_hospitals()


def test_every_scanner_of_the_configuration_is_one() -> None:
    names = sorted(path.stem for path in SCANNERS.glob("*.yaml"))
    assert names
    assert [named_scanner(name).name for name in names] == names


def test_the_data_root_is_a_folder_that_is_there(tmp_path: Path) -> None:
    assert data_root(compose([f"data.root={tmp_path}"])) == tmp_path.resolve()
    for overrides in ([], [f"data.root={tmp_path / 'gone'}"]):
        with pytest.raises(SettingsError, match="is not a folder"):
            data_root(compose(overrides))
