"""A choice by name: what may be asked for, its settings, and how it is built."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from common.checks import one_of


class Named(Protocol):
    """Settings that say what they are the settings of."""

    @property
    def name(self) -> str:
        """The name of the choice."""
        ...


Config = TypeVar("Config", bound=Named)
Built = TypeVar("Built")


@dataclass(frozen=True)
class Entry(Generic[Config, Built]):
    """One thing that may be asked for."""

    config: type[Config]
    """Its settings."""
    build: Callable[..., Built]
    """From its settings to the thing."""


def config_type(entries: Mapping[str, Entry[Config, Built]], group: str, name: str) -> type[Config]:
    """Return the dataclass of an entry's settings; `group` is the entries' name in a study.

    Raises:
        ValueError: no entry has this name; the message lists those that exist.
    """
    one_of(entries, **{f"{group}.name": name})
    return entries[name].config


def build(entries: Mapping[str, Entry[Config, Built]], group: str, config: Config) -> Built:
    """Return what the settings describe.

    Raises:
        ValueError: no entry has this name, or the settings are those of another entry.
    """
    expected = config_type(entries, group, config.name)
    if not isinstance(config, expected):
        raise ValueError(
            f"{group}.name={config.name!r} came with {type(config).__name__}; "
            f"give the settings as {expected.__name__}"
        )
    return entries[config.name].build(config)
