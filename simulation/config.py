"""The settings of a simulation: which hospitals there are, on what they run. None travels."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from common.checks import not_negative, one_of, positive
from common.schema import SettingsError, typed
from configs import CONFIG_FOLDER
from server.tracking.config import TrackingConfig
from simulation.beyond_config import BeyondConfig
from simulation.hospitals import Hospital
from simulation.outlook import Outlook
from simulation.partition import PartitionConfig
from simulation.phantom import CaseMix
from simulation.scanner import ScannerConfig
from simulation.scenario_config import ScenarioConfig
from simulation.table_config import TableConfig

AUTO = "auto"
_MADE = ("scanner", "case_mix", "outlook", "sequences")
SCANNERS = CONFIG_FOLDER / "simulation" / "scanner"


@dataclass(frozen=True, kw_only=True)
class SimulationConfig:
    """One machine that plays every hospital."""

    engine: str = "auto"
    """ray: resident actors; inprocess: this process alone; auto: this process, and actors as soon
    as they save more time than they cost (at once with a GPU or a cluster)."""
    actors: int = 2
    """Hospitals that train at the same time, on actors."""
    gpus_per_actor: float | str = 0.0
    """Share of a GPU of each; above 0 the hospitals train on CUDA. auto: as much as a training step
    of the study takes of this machine's GPU."""
    address: str | None = None
    """Of a Ray cluster that runs already, auto: the one that RAY_ADDRESS or the last ray start on
    this machine names. All of its machines have this version and see the run's folder and the data
    under the same paths. null: this machine."""
    source: str = "virtual"
    """virtual: phantoms seen through scanners; real: a data set dealt to hospitals."""
    hospitals: dict[str, Any] = field(default_factory=dict)
    """With source=virtual: hospitals by name (scanner, patients, held_out, case_mix, outlook,
    sequences)."""
    partition: dict[str, Any] = field(default_factory=dict)
    """With source=real: how the data set is dealt (simulation/partition.py)."""
    overlay: list[str] = field(default_factory=list)
    """With source=real: a scanner laid over each hospital, in the order of the hospitals."""
    scenario: dict[str, Any] | None = None
    """What goes wrong (simulation/scenario_config.py); null: nothing."""
    tracking: dict[str, Any] | None = None
    """Where the run is told of besides its folder (server/tracking/config.py); null: nowhere."""
    table: dict[str, Any] | None = None
    """An experiment made of others (simulation/table_config.py); null: this is one of its own."""

    beyond: dict[str, Any] | None = None
    """An experiment made of measures of others (simulation/beyond_config.py); null: it is not."""

    @property
    def on_gpu(self) -> bool:
        """Whether the hospitals train on a GPU."""
        return self.gpus_per_actor != 0

    @property
    def of_others(self) -> bool:
        """Whether the experiment has no run of its own."""
        return self.table is not None or self.beyond is not None

    def __post_init__(self) -> None:
        one_of((AUTO, "ray", "inprocess"), **{"simulation.engine": self.engine})
        one_of(("virtual", "real"), **{"simulation.source": self.source})
        positive(**{"simulation.actors": self.actors})
        share = self.gpus_per_actor
        if not isinstance(share, str):
            not_negative(**{"simulation.gpus_per_actor": share})
        elif share != AUTO:
            raise ValueError(
                f"simulation.gpus_per_actor={share} is no share of a GPU; give one, as 0.5, auto "
                "to have it measured, or 0 for the CPU"
            )
        self.scenario_config()
        self.tracking_config()
        if self.address is not None and self.engine == "inprocess":
            raise ValueError(
                f"simulation.address={self.address} is a Ray cluster, which "
                "simulation.engine=inprocess does without; choose simulation.engine=ray"
            )
        if self.source == "virtual" and not self.hospitals and not self.of_others:
            raise ValueError(
                "simulation.hospitals is empty; choose an experiment, as experiment=virtual_mri, "
                "or name at least one virtual hospital"
            )

    def virtual_hospitals(self) -> list[Hospital]:
        """Return the virtual hospitals, largest first: the engine then starts the longest first."""
        hospitals = [self._hospital(name, about) for name, about in self.hospitals.items() if about]
        return sorted(hospitals, key=lambda hospital: (-hospital.patients, hospital.name))

    def partition_config(self) -> PartitionConfig:
        """Return how a real data set is dealt, checked."""
        return typed(self.partition, PartitionConfig, "simulation.partition")

    def scenario_config(self) -> ScenarioConfig | None:
        """Return what goes wrong, checked."""
        if self.scenario is None:
            return None
        return typed(self.scenario, ScenarioConfig, "simulation.scenario")

    def tracking_config(self) -> TrackingConfig | None:
        """Return where the run is told of, checked."""
        if self.tracking is None:
            return None
        return typed(self.tracking, TrackingConfig, "simulation.tracking")

    def table_config(self) -> TableConfig:
        """Return of which runs the experiment is made, checked."""
        return typed(self.table or {}, TableConfig, "simulation.table")

    def beyond_config(self) -> BeyondConfig:
        """Return what is measured, checked."""
        return typed(self.beyond or {}, BeyondConfig, "simulation.beyond")

    def _hospital(self, name: str, about: dict[str, Any]) -> Hospital:
        node = f"simulation.hospitals.{name}"
        rest = {key: value for key, value in about.items() if key not in _MADE}
        mix = typed(about.get("case_mix") or {}, CaseMix, f"{node}.case_mix")
        known = about.get("outlook")
        outlook = None if known is None else typed(known, Outlook, f"{node}.outlook")
        try:
            return Hospital(
                name=name,
                scanner=named_scanner(about["scanner"]),
                case_mix=mix,
                outlook=outlook,
                sequences=_sequences(about),
                **rest,
            )
        except (KeyError, TypeError) as error:
            raise SettingsError(
                f"{node}: {error}; a hospital takes scanner, patients, held_out, case_mix, "
                "outlook, sequences and new_lesions_mean"
            ) from error


def _sequences(about: Mapping[str, Any]) -> dict[str, ScannerConfig] | None:
    asked = about.get("sequences")
    return None if asked is None else {n: named_scanner(scanner) for n, scanner in asked.items()}


def named_scanner(name: str) -> ScannerConfig:
    """Return one of the scanners in configs/simulation/scanner/.

    Raises:
        SettingsError: no scanner has the name.
    """
    path = SCANNERS / f"{name}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(file.stem for file in SCANNERS.glob("*.yaml")))
        raise SettingsError(f"scanner {name!r} is not known; choose one of: {known}")
    node = OmegaConf.load(path)
    assert isinstance(node, DictConfig)
    return typed(node, ScannerConfig, f"scanner {name}")


def simulation_of(tree: DictConfig) -> SimulationConfig:
    """Return the simulation part of a composed tree, checked."""
    return typed(tree.simulation, SimulationConfig, "simulation")


def data_root(tree: DictConfig) -> Path:
    """Return the folder of the real data set.

    Raises:
        SettingsError: it is not set, or not there.
    """
    root = tree.data.get("root")
    if root is None or not Path(root).is_dir():
        raise SettingsError(
            f"data.root={root} is not a folder; this experiment reads a real data set: give its "
            "folder, as in data.root=../shared/data"
        )
    return Path(root).resolve()
