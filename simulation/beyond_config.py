"""simulation.beyond: the measures of what goes beyond segmenting and classifying, a row each."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from common.checks import one_of
from common.schema import SettingsError, typed

KINDS = ("restoration", "survival", "pretraining", "compress", "uncertainty")


@dataclass(frozen=True, kw_only=True)
class MeasuredRow:
    """What one row runs."""

    kind: str
    """What is measured of its run: restoration, survival, pretraining, compress or uncertainty."""
    experiment: str
    """The experiment that is run; of pretraining the one with labels."""
    settings: list[str] = field(default_factory=list)
    """Overrides of it."""
    first: list[str] = field(default_factory=list)
    """All overrides of the study that is run first, and whose model the others begin with: of
    pretraining, which needs it, the one without labels; of survival one that finds lesions."""
    labels: float | None = None
    """Of pretraining: share of the training patients who have labels."""
    rest: list[str] = field(default_factory=list)
    """Of pretraining: overrides by which the study learns from the other patients too; empty: that
    is not measured."""
    student: list[str] = field(default_factory=list)
    """Of compress: overrides of a smaller network, which is told of too; empty: none."""
    federated: list[str] = field(default_factory=list)
    """Of restoration: overrides of the federation beside which pooled data are trained by the
    settings alone: what suits many sites need not suit one. empty: none."""
    private: bool = False
    """Of pretraining: whether each of its studies, the first too, has epsilon 8 of its own."""

    def __post_init__(self) -> None:
        one_of(KINDS, **{"simulation.beyond.rows.kind": self.kind})
        pretraining = self.kind == "pretraining"
        first = self.kind == "survival" or bool(self.first) == pretraining
        if not first or (self.labels is not None) != pretraining:
            raise SettingsError(
                f"simulation.beyond.rows: first={list(self.first)} and labels={self.labels} are of "
                "kind=pretraining, which needs both, and first may be of kind=survival; leave them "
                "out elsewhere"
            )
        if (self.rest or self.private) and self.kind != "pretraining":
            raise SettingsError(
                f"simulation.beyond.rows: rest={list(self.rest)} and private={self.private} are of "
                "kind=pretraining; leave both out elsewhere"
            )
        for name, kind in (("student", "compress"), ("federated", "restoration")):
            if getattr(self, name) and self.kind != kind:
                raise SettingsError(
                    f"simulation.beyond.rows: {name}={list(getattr(self, name))} is of "
                    f"kind={kind}; leave it out elsewhere"
                )


@dataclass(frozen=True, kw_only=True)
class BeyondConfig:
    """The rows, and what is known of them."""

    rows: dict[str, Any]
    """By name: a row; null: it is left out, and told as not run."""
    known: str | None = None
    """A file of measures (*.rows.jsonl) that such a table has written, here or elsewhere: what
    stands in it is not run again. null: none."""

    def measured_rows(self) -> Mapping[str, MeasuredRow | None]:
        """Return every row, None where it is left out."""
        return {
            name: None
            if about is None
            else typed(about, MeasuredRow, f"simulation.beyond.rows.{name}")
            for name, about in self.rows.items()
        }
