"""simulation.table: an experiment that is made of others, as rows of methods on data sets."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from common.checks import not_negative, one_of
from common.contract import OTHERS
from common.schema import Schema, SettingsError, typed
from server.evaluation.shift import FEDERATED, POOLED

LEFT_OUT_BY = ("strategy.tested", "simulation.partition.leave_out")
ENSEMBLE = "ensemble"
MODELS = (FEDERATED, *OTHERS, POOLED, ENSEMBLE)


@dataclass(frozen=True, kw_only=True)
class ExperimentOfStudy:
    """A data set of the table."""

    settings: list[str] = field(default_factory=list)
    """Overrides of all its runs."""
    left_out: list[str] = field(default_factory=list)
    """Sites that are left out, each in one run; they are spread over the seeds."""
    left_out_by: str = "strategy.tested"
    """The setting that leaves a site out: strategy.tested (it tests on the patients that it holds
    out in the other runs too), or simulation.partition.leave_out (it tests on all of them)."""
    whole: bool = True
    """Whether there are runs with all sites; where a site has no patients to hold out it has no
    figures of its own."""

    def __post_init__(self) -> None:
        one_of(LEFT_OUT_BY, **{"simulation.table.experiments.left_out_by": self.left_out_by})


@dataclass(frozen=True, kw_only=True)
class RowOfStudy:
    """A method of the table."""

    run: str = ""
    """The row whose runs it is read from; empty: it has runs of its own."""
    model: str = FEDERATED
    """Which model of the run: federated, local, personal, pooled or ensemble."""
    settings: list[str] = field(default_factory=list)
    """Overrides of its runs."""
    at: dict[str, list[str]] = field(default_factory=dict)
    """More overrides, by experiment."""
    not_at: list[str] = field(default_factory=list)
    """Experiments that have no such row."""
    left_out: bool = True
    """Whether it is run without each site, too."""

    def __post_init__(self) -> None:
        one_of(MODELS, **{"simulation.table.rows.model": self.model})


@dataclass(frozen=True, kw_only=True)
class TableConfig:
    """Rows on data sets, each with several seeds."""

    seeds: list[int]
    """Seeds of the runs with all sites."""
    experiments: dict[str, Any]
    """By experiment: what is set for all its runs; null: it is left out."""
    rows: dict[str, Any]
    """By name: a method; null: it is left out."""
    known: str | None = None
    """A file of outcomes (*.runs.jsonl) that a table has written, here or elsewhere: what stands in
    it is not run again. null: none."""
    curve: bool | None = None
    """Whether a table of the metric over what the sites have sent is printed too; null: none is."""

    def __post_init__(self) -> None:
        not_negative(**{f"simulation.table.seeds[{n}]": s for n, s in enumerate(self.seeds)})
        for row, about in self.method_rows().items():
            if about.run and about.run not in self.rows:
                raise SettingsError(
                    f"simulation.table.rows.{row}.run={about.run} is no row; choose one of: "
                    f"{', '.join(self.rows)}"
                )

    def data_sets(self) -> dict[str, ExperimentOfStudy]:
        """Return the experiments, without those that were set to null."""
        return _given(self.experiments, ExperimentOfStudy, "simulation.table.experiments")

    def method_rows(self) -> dict[str, RowOfStudy]:
        """Return the rows, without those that were set to null."""
        return _given(self.rows, RowOfStudy, "simulation.table.rows")


def _given(values: Mapping[str, Any], schema: type[Schema], node: str) -> dict[str, Schema]:
    return {
        name: typed(about, schema, f"{node}.{name}")
        for name, about in values.items()
        if about is not None
    }
