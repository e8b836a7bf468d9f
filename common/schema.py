"""Plain settings into frozen dataclasses, with types and values checked."""

import dataclasses
from collections.abc import Mapping
from typing import Any, TypeVar, cast

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

Schema = TypeVar("Schema")


class SettingsError(ValueError):
    """Settings that cannot be used; the text names the setting, its value and the way out."""


def typed(values: Mapping[str, Any] | DictConfig, schema: type[Schema], name: str) -> Schema:
    """Return the values as their dataclass; interpolations are resolved.

    Raises:
        SettingsError: a key that the schema lacks, a value of another type, or one that the
            dataclass refuses.
    """
    try:
        node = values if isinstance(values, DictConfig) else OmegaConf.create(dict(values))
        plain = OmegaConf.create(OmegaConf.to_container(node, resolve=True))
        return cast(Schema, OmegaConf.to_object(OmegaConf.merge(_open(schema), plain)))
    except OmegaConfBaseException as error:
        first_line = str(error).splitlines()[0]
        known = ", ".join(field.name for field in dataclasses.fields(cast(Any, schema)))
        at = f"{name}.{error.full_key}" if error.full_key else name
        raise SettingsError(f"{at}: {first_line}; {name} takes {known}") from error
    except (ValueError, TypeError) as error:
        raise SettingsError(str(error)) from error


def _open(schema: type[Any]) -> DictConfig:
    """Return a frozen dataclass as a node that takes values, its parts too."""
    node = cast(DictConfig, OmegaConf.structured(schema))
    parts = [node]
    while parts:
        part = parts.pop()
        OmegaConf.set_readonly(part, False)
        parts += [child for key in part if isinstance(child := part._get_node(key), DictConfig)]
    return node
