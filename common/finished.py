"""A finished study as its run folder holds it, or as a site kept it: settings, model, result."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from safetensors import SafetensorError
from torch import nn

from common.config import load_study, study_digest, study_of
from common.domain import Domain, domain_told
from common.files import read_json
from common.models.initial import start_network
from common.schema import SettingsError
from common.state import State
from common.study import Study
from common.tasks.classification import ClassificationConfig
from common.tasks.registry import Task, build_task
from common.tensor_files import read_tensors

RESULT, MODEL = "result.json", "model.safetensors"
"""Of a run folder: what the run told, and its last model."""
_OPTIONAL = {"evaluation": None, "compression": None}
_SHOWN = 3


@dataclass(frozen=True, kw_only=True)
class Finished:
    """A study with its model, on the CPU and in eval mode."""

    weights: Path
    """The file that the network's weights are from."""
    study: Study
    digest: str
    network: nn.Module
    rounds: int | None
    """Full rounds behind the model; None where its file does not tell."""
    result: Mapping[str, Any] | None
    """Content of result.json; None of a model that a site kept."""

    @property
    def task(self) -> Task:
        """The study's task, at the run's own temperature where it chose one.

        What one site's patients chose of it, as a threshold, stays at that site.
        """
        config, chosen = self.study.task, self.chosen_temperature
        if chosen is not None and isinstance(config, ClassificationConfig):
            config = replace(config, temperature=chosen)
        return build_task(config)

    @property
    def chosen_temperature(self) -> float | None:
        """The temperature that fits the sites' held-out patients best; None where none was chosen.

        Only of a classification that asked for it (task.temperatures), and of the last model.
        """
        told = self.measured.get("temperature")
        return None if told is None else float(told["value"])

    @property
    def measured(self) -> Mapping[str, Any]:
        """What the result tells of this model: of the run's last one all, of another nothing.

        Final figures, the domain and the comparisons are of the last model, not of the best.
        """
        return (self.result or {}) if self.weights.name == MODEL else {}

    @property
    def domain(self) -> Domain | None:
        """How the images of all sites look to the model; None where the run does not tell."""
        told = (self.measured.get("shift") or {}).get("domain")
        return None if told is None else domain_told(told)

    @property
    def one_image_a_patient(self) -> bool:
        """Whether each training patient is known to be one sample of the study."""
        sites = (self.measured.get("sites") or {}).values()
        counts = [(of.get("images_train"), of.get("patients_train")) for of in sites]
        return bool(counts) and all(images and images == patients for images, patients in counts)

    @property
    def records(self) -> list[Mapping[str, Any]]:
        """The result's rounds that are behind the model."""
        rounds = (self.result or {}).get("rounds", [])
        return [of for of in rounds if self.rounds is None or of["round"] <= self.rounds]


def load_finished(path: Path) -> Finished:
    """Return the study of a run folder, or of one of its models, or of a model that a site kept.

    Raises:
        SettingsError: there is none, or its files do not belong together.
    """
    if not path.exists():
        raise SettingsError(f"{path} does not exist; give a finished study's run folder")
    weights = path / MODEL if path.is_dir() else path
    if not weights.is_file():
        raise SettingsError(
            f"{path} holds no finished study ({weights.name} is missing); give a run folder whose "
            "study has ended, or the .safetensors file that a site kept of it (state/pages)"
        )
    try:
        state, about = read_tensors(weights)
    except (OSError, ValueError, SafetensorError) as error:
        raise SettingsError(
            f"{weights} cannot be read as weights ({error}); restore it from the run"
        ) from error
    if isinstance(about, dict) and "overrides" in about:
        study, result = load_study(about["overrides"]), None
    else:
        result = result_at(weights.parent)
        study = study_in(result, weights.parent / RESULT)
    digest = study_digest(study)
    told = (about or {}).get("digest")
    if result is not None and told is None:
        raise SettingsError(
            f"{weights} does not tell which study it is of, so it may be any; give the run's "
            f"{MODEL}, or run the study with this version"
        )
    if told is not None and told != digest:
        raise SettingsError(
            f"{weights} is of study {told}, and {RESULT} beside it of {digest}; put the files of "
            "one run together again"
        )
    if study.model.members is not None:
        raise SettingsError(
            f"{weights} is an ensemble of {study.model.members} networks of single sites, "
            "made to be measured and not to be used; give the run of the federated model"
        )
    return Finished(
        weights=weights,
        study=study,
        digest=digest,
        network=_network(study, state, weights),
        rounds=(about or {}).get("rounds"),
        result=result,
    )


def result_at(folder: Path) -> dict[str, Any]:
    """Return what the run of a folder told.

    Raises:
        SettingsError: it cannot be read, or there is none.
    """
    path = folder / RESULT
    if not path.is_file():
        raise SettingsError(
            f"{folder} holds no {RESULT}, which says what a study was and what it told; give the "
            "run folder itself, or of a model the file that a site kept"
        )
    try:
        return dict(read_json(path))
    except (OSError, ValueError) as error:
        raise SettingsError(f"{path} cannot be read as a result: {error}") from error


def study_in(result: Mapping[str, Any], path: Path) -> Study:
    """Return the study of a result; what was null is not in it and is put back.

    path: where the result was read, for errors.

    Raises:
        SettingsError: it is no result, or was changed, or is of another version.
    """
    try:
        study = study_of(OmegaConf.create({**_OPTIONAL, **result["study"]}))
    except KeyError as error:
        raise SettingsError(f"{path} lacks {error}; it is no result of a study") from error
    digest = study_digest(study)
    if digest != result.get("study_digest"):
        raise SettingsError(
            f"{path} tells of study {result.get('study_digest')}, and its settings are those of "
            f"{digest}: it was changed, or made by another version of wardround"
        )
    return study


def _network(study: Study, state: State, weights: Path) -> nn.Module:
    network = start_network(study)
    needed = network.state_dict()
    missing = sorted(set(needed) - set(state))
    if missing:
        shown = ", ".join(missing[:_SHOWN]) + (", ..." if len(missing) > _SHOWN else "")
        raise SettingsError(
            f"{weights} lacks {len(missing)} tensors ({shown}); each site keeps them for itself "
            "(model.local, or batch norm that is local), so use the model at a site: its file in "
            "state/pages"
        )
    try:
        network.load_state_dict({name: state[name] for name in needed})
    except RuntimeError as error:
        raise SettingsError(
            f"{weights} does not fit the study's network {study.model.name}: "
            f"{str(error).splitlines()[-1].strip()}"
        ) from error
    return network.eval()
