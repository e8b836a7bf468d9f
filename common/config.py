"""From Hydra overrides to a Study, and a study's digest. The only Hydra code of the apps."""

import dataclasses
import difflib
import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast

import hydra
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, OmegaConf

from common.compression_config import CompressionConfig
from common.data_config import DataConfig
from common.models.registry import model_config_type
from common.schema import SettingsError, typed
from common.strategy_config import StrategyConfig
from common.study import EvaluationConfig, PrivacyConfig, Study
from common.tasks.registry import task_config_type
from common.training_config import TrainingConfig
from configs import CONFIG_FOLDER

LOCAL_GROUPS = ("run", "simulation", "hydra")
"""Groups that never travel: they speak of one machine."""
LOCAL_KEYS = ("data.root",)
"""Single keys that never travel."""
PLAIN_KEYS = ("name", "seed", "rounds", "evaluate_every", "begins_with")
"""Settings of a study that are in no group."""
WORDS = {"name", "begins_with"}
"""Those of them that are no whole numbers."""
_KEY = re.compile(r"[A-Za-z_]\w*(\.\w+)*")
_CHOICE = re.compile(r"[\w-]+|\[[\w-]+(,[\w-]+)*\]", re.ASCII)
"""One option of a group, or a list of them."""


def compose(overrides: Sequence[str]) -> DictConfig:
    """Return the composed tree of all groups.

    Another model than the experiment's has its own settings: those that the experiment gives its
    model would not fit, or would fit by chance.

    Raises:
        SettingsError: an unknown group, key or option.
    """
    tree = _compose(overrides)
    _check_methods(overrides)
    chosen = [override for override in overrides if override.startswith("model=")]
    if chosen and any(override.startswith("experiment=") for override in overrides):
        usual = _compose([override for override in overrides if not _of_model(override)])
        if usual.model.name != tree.model.name:
            tree.model = _compose([o for o in overrides if _of_model(o) or _of_method(o)]).model
    return tree


def _check_methods(overrides: Sequence[str]) -> None:
    """Refuse choices beside a method's own, of which Hydra would drop one without a word."""
    methods = [o.partition("=")[2].strip("[]'\" ") for o in overrides if _of_method(o)]
    if len(methods) > 1:
        raise SettingsError(
            f"method is given {len(methods)} times, and the last alone would count; give "
            f"method=[{','.join(methods)}]"
        )
    made_with: dict[str, tuple[str, str]] = {}
    named = [name.strip("'\" ") for of in methods for name in of.split(",")]
    for method in filter(None, named):
        own = OmegaConf.load(CONFIG_FOLDER / "method" / f"{method}.yaml")
        for choice in OmegaConf.select(own, "defaults") or []:
            ((key, name),) = choice.items()
            group = str(key).removeprefix("override /")
            other = made_with.setdefault(group, (f"method={method}", str(name)))
            if other[1] != name:
                raise SettingsError(
                    f"{other[0]} is made with {group}={other[1]} and method={method} with "
                    f"{group}={name}; they cannot be put together, leave one out"
                )
    _check_settings([name for name in named if name], overrides)
    for group, (method, name) in made_with.items():
        others = [o for o in overrides if o.startswith(f"{group}=") and o != f"{group}={name}"]
        if others:
            raise SettingsError(
                f"{method} is made with {group}={name}, and {others[0]} would take that away; "
                f"leave one of the two out, or set single values, as {group}.KEY=VALUE"
            )


def _check_settings(methods: Sequence[str], overrides: Sequence[str]) -> None:
    """Refuse methods that set one thing to two values, of which the last alone would count."""
    given = {override.partition("=")[0] for override in overrides}
    set_by: dict[str, tuple[str, object]] = {}
    for method in methods:
        own = OmegaConf.load(CONFIG_FOLDER / "method" / f"{method}.yaml")
        for key, value in _settings_in(cast(DictConfig, own)):
            first, earlier = set_by.setdefault(key, (method, value))
            if earlier != value and key not in given:
                raise SettingsError(
                    f"method={first} sets {key}={earlier} and method={method} sets {key}={value}, "
                    f"so one of the two would be lost; leave one out, or give {key} yourself"
                )


def _settings_in(own: DictConfig, group: str = "") -> Iterator[tuple[str, object]]:
    """Yield each single setting of a method, by its whole name."""
    for key, value in own.items():
        name = f"{group}{key!s}"
        if isinstance(value, DictConfig):
            yield from _settings_in(value, f"{name}.")
        elif name != "defaults":
            yield name, value


def _of_model(override: str) -> bool:
    return override.lstrip("+~").partition("=")[0].partition(".")[0] == "model"


def _of_method(override: str) -> bool:
    return override.startswith("method=")


def _fewest_outputs(task: str, out_channels: int) -> int:
    """Return the fewest outputs by which a network answers: of one class a voxel a single one."""
    return min(task_config_type(task).outputs(out_channels))


def _compose(overrides: Sequence[str]) -> DictConfig:
    OmegaConf.register_new_resolver("fewest_outputs", _fewest_outputs, replace=True)
    with _fresh_hydra():
        try:
            with hydra.initialize_config_dir(str(CONFIG_FOLDER), version_base="1.3"):
                return hydra.compose("config", overrides=list(overrides))
        except Exception as error:
            unknown = re.search(r"Could not override '([^']+)'", str(error))
            if unknown is not None:
                raise SettingsError(_no_such_setting(unknown[1])) from error
            choice = re.search(r"Could not (?:find|load) '([a-z]+)/([^']*)'", str(error))
            if choice is not None:
                raise SettingsError(_no_such_choice(choice[1], choice[2])) from error
            strange = re.search(r"Error parsing override '([^'=]+)'", str(error))
            if strange is not None:
                raise SettingsError(
                    f"{strange[1]} is no setting, which has the form key=value; --help lists the "
                    "commands and the settings"
                ) from error
            raise SettingsError(f"settings {list(overrides)} do not compose: {error}") from error


def _no_such_setting(key: str) -> str:
    """Return what to say of a misspelt setting; Hydra's own advice would add a new one."""
    known: list[str] = []
    for group, values in _compose([]).items():
        names = [str(name) for name in values] if isinstance(values, DictConfig) else []
        known += [f"{group!s}.{name}" for name in names] or [str(group)]
    if key in known:
        group = key.partition(".")[0]
        return f"{key} cannot be set so with this study's choice of {group}; leave it out"
    near = next(iter(difflib.get_close_matches(key, known, 1, 0.6)), None)
    if near is None:
        return f"no setting is called {key}; wardround-sim --help lists them all"
    return f"no setting is called {key}; did you mean {near}?"


def _no_such_choice(group: str, name: str) -> str:
    known = sorted(path.stem for path in (CONFIG_FOLDER / group).glob("*.yaml"))
    near = next(iter(difflib.get_close_matches(name, known, 1, 0.6)), None)
    meant = "" if near is None else f"did you mean {near}? "
    return f"{group}={name} is not known; {meant}there are: {', '.join(known)}"


def check_travelled(overrides: Sequence[str]) -> None:
    """Refuse overrides from another machine that could lead to files of this one.

    A group's choice is a file's name to Hydra, and so may be a path; @ puts a file's content
    elsewhere, ${...} reads the environment.

    Raises:
        SettingsError: an override is more than a choice of a group or a value of a setting.
    """
    if list(overrides) != travelling(overrides):
        raise SettingsError("an override is no setting of a study; leave it out")
    for override in overrides:
        key, _, value = override.partition("=")
        if not _KEY.fullmatch(key) or "${" in override:
            raise SettingsError("an override has a form that no study needs; write key=value")
        group = (CONFIG_FOLDER / key).is_dir()
        if "." not in key and not group and key not in PLAIN_KEYS:
            raise SettingsError("an override is no setting of a study; leave it out")
        if group and not _CHOICE.fullmatch(value):
            raise SettingsError("the choice of a group is no plain name; give one of its options")


def sent(overrides: Sequence[str]) -> list[str]:
    """Return travelling(overrides), once it is sure that a site takes each of them.

    Raises:
        SettingsError: it would refuse one, which is named.
    """
    travels = travelling(overrides)
    for override in travels:
        try:
            check_travelled([override])
        except SettingsError as error:
            raise SettingsError(f"{override}: {error}") from error
    return travels


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
            **_plain(tree),
            model=typed(tree.model, model_config_type(tree.model.name), "model"),
            task=typed(tree.task, task_config_type(tree.task.name), "task"),
            data=typed(data, DataConfig, "data"),
            training=typed(tree.training, TrainingConfig, "training"),
            strategy=typed(tree.strategy, StrategyConfig, "strategy"),
            privacy=typed(tree.privacy, PrivacyConfig, "privacy"),
            evaluation=None
            if tree.evaluation is None
            else typed(tree.evaluation, EvaluationConfig, "evaluation"),
            compression=None
            if tree.compression is None
            else typed(tree.compression, CompressionConfig, "compression"),
        )
    except SettingsError:
        raise
    except (ValueError, TypeError) as error:
        raise SettingsError(str(error)) from error


def _plain(tree: DictConfig) -> dict[str, Any]:
    """Return the settings that are in no group; what an earlier version's tree lacks is usual."""
    given = {key: tree[key] for key in PLAIN_KEYS if key in tree}
    for key, value in given.items():
        if key in WORDS:
            given[key] = value if value is None else str(value)
        elif type(value) is not int:
            raise SettingsError(f"{key}={value} is no whole number; give one")
    return given


def travelling(overrides: Sequence[str]) -> list[str]:
    """Return the overrides that describe the study, without those that speak of this machine."""

    def local(override: str) -> bool:
        key = override.lstrip("+~").split("=", 1)[0].split("@", 1)[0]
        return key.split(".")[0].split("/")[0] in LOCAL_GROUPS or key in LOCAL_KEYS

    return [override for override in overrides if not local(override)]


def canonical(study: Study) -> str:
    """Return the study as canonical JSON: sorted keys, no spaces, no null.

    What is null is not in it, so a version that adds a setting, null by default, changes neither
    the digest nor the noise of the studies that do not use it.
    """
    settings = dataclasses.asdict(study, dict_factory=_without_null)
    return json.dumps(settings, sort_keys=True, separators=(",", ":"))


def _without_null(items: list[tuple[str, object]]) -> dict[str, object]:
    return {key: value for key, value in items if value is not None}


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
