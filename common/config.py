"""From Hydra overrides to a Study, and a study's digest. The only Hydra code of the apps."""

import dataclasses
import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import hydra
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, OmegaConf

import configs
from common.models.registry import model_config_type
from common.schema import SettingsError, typed
from common.study import DataConfig, PrivacyConfig, StrategyConfig, Study, TrainingConfig
from common.tasks.registry import task_config_type

CONFIG_FOLDER = Path(configs.__file__).parent
LOCAL_GROUPS = ("run", "simulation", "hydra")
"""Groups that never travel: they speak of one machine."""
LOCAL_KEYS = ("data.root",)
"""Single keys that never travel."""


def compose(overrides: Sequence[str]) -> DictConfig:
    """Return the composed tree of all groups.

    Raises:
        SettingsError: an unknown group, key or option.
    """
    with _fresh_hydra():
        try:
            with hydra.initialize_config_dir(str(CONFIG_FOLDER), version_base="1.3"):
                return hydra.compose("config", overrides=list(overrides))
        except Exception as error:
            raise SettingsError(f"settings {list(overrides)} do not compose: {error}") from error


def load_study(overrides: Sequence[str]) -> Study:
    """Return the study that the overrides describe.

    Raises:
        SettingsError: a setting that does not exist, has the wrong type or an impossible value.
    """
    return study_of(compose(overrides))


def study_of(tree: DictConfig) -> Study:
    """Return the study part of a composed tree, checked."""
    data = OmegaConf.create({k: v for k, v in tree.data.items() if f"data.{k}" not in LOCAL_KEYS})
    try:
        return Study(
            name=str(tree.name),
            seed=int(tree.seed),
            rounds=int(tree.rounds),
            evaluate_every=int(tree.evaluate_every),
            model=typed(tree.model, model_config_type(tree.model.name), "model"),
            task=typed(tree.task, task_config_type(tree.task.name), "task"),
            data=typed(data, DataConfig, "data"),
            training=typed(tree.training, TrainingConfig, "training"),
            strategy=typed(tree.strategy, StrategyConfig, "strategy"),
            privacy=typed(tree.privacy, PrivacyConfig, "privacy"),
        )
    except SettingsError:
        raise
    except (ValueError, TypeError) as error:
        raise SettingsError(str(error)) from error


def travelling(overrides: Sequence[str]) -> list[str]:
    """Return the overrides that describe the study, without those that speak of this machine."""

    def local(override: str) -> bool:
        key = override.lstrip("+~").split("=", 1)[0].split("@", 1)[0]
        return key.split(".")[0].split("/")[0] in LOCAL_GROUPS or key in LOCAL_KEYS

    return [override for override in overrides if not local(override)]


def canonical(study: Study) -> str:
    """Return the study as canonical JSON: sorted keys, no spaces."""
    return json.dumps(dataclasses.asdict(study), sort_keys=True, separators=(",", ":"))


def study_digest(study: Study) -> str:
    """Return the SHA-256 of the canonical JSON: what a site approves."""
    return hashlib.sha256(canonical(study).encode()).hexdigest()


@contextmanager
def _fresh_hydra() -> Iterator[None]:
    # The command line's @hydra.main leaves a global instance behind, and compose refuses a second.
    outer = GlobalHydra.instance().hydra
    GlobalHydra.instance().hydra = None
    try:
        yield
    finally:
        GlobalHydra.instance().hydra = outer
