"""What only a study of its own can tell: each site's model everywhere, all of them, or all but it.

Over a real network every turn is a study with a digest of its own. Every site's data officer
approves it and every ledger is charged for it, so a site's own model travels only where the site
that made it and the sites that test it have both agreed; with differential privacy it is private.
The ensemble of these models is tested where they all went, in a study that trains nothing.
"""

from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from typing import Any, NamedTuple

from common.config import load_study, study_digest
from common.contract import LOCAL
from common.models.registry import local_names
from common.state import State
from common.study import Study
from common.tasks.task import Metric
from server.checkpoint import Checkpoint
from server.evaluation.left_out import row_of, with_left_out
from server.evaluation.shift import ENSEMBLE, cells_of_result, with_models
from server.run import initial_network, shared_state


class Turn(NamedTuple):
    """A study of which one site is the subject, or of the ensemble all."""

    name: str
    overrides: list[str]
    digest: str


Results = Mapping[str, Mapping[str, Any]]
"""By site: result.json of its turn."""


class Kind(StrEnum):
    """What the sites take turns in."""

    OWN_MODELS = "own-models"
    """A site trains alone, all are tested."""
    LEFT_OUT = "left-out"
    """All but one train, all are tested."""
    ENSEMBLE = "ensemble"
    """One turn for all: the own models together are tested, and nobody trains."""


def turns_of(kind: Kind, overrides: list[str], result: Mapping[str, Any]) -> dict[str, Turn]:
    """Return each turn, by the site that it is about; the ensemble's by that word.

    overrides, result: of the study with all sites, which has ended.

    Raises:
        ValueError: the study has no model, or none that is whole; too few sites took part.
    """
    if result["status"] not in ("completed", "partial"):
        raise ValueError(
            f"the study is {result['status']} and has no model to compare with; resume it first"
        )
    study = load_study(overrides)
    _check_comparable(kind, study, result)
    tested = set(study.strategy.tested or [])
    training = [
        site
        for site, about in result["sites"].items()
        if about["patients_train"] > 0 and site not in tested
    ]
    if len(training) < 2:
        raise ValueError(f"{len(training)} site trained; to take turns there must be two")
    if kind is Kind.ENSEMBLE:
        whole = _turn(f"{study.name}_{ENSEMBLE}", overrides, result["sites"], 1)
        return {ENSEMBLE: _with(whole, f"model.members={len(training)}")}
    turns = {}
    for site in training:
        alone = kind is Kind.OWN_MODELS
        others = {s for s in result["sites"] if s != site} if alone else tested | {site}
        name = f"{study.name}_{'only' if alone else 'without'}_{site}"
        quorum = 1 if alone else min(study.strategy.quorum, len(training) - 1)
        turns[site] = _turn(name, overrides, others, quorum)
    return turns


def _turn(name: str, overrides: Sequence[str], tested: Iterable[str], quorum: int) -> Turn:
    kept = [o for o in overrides if _key(o) not in ("evaluation", "name")]
    # In quotes: a site may be called 2024, which is a number else.
    names = ",".join(repr(site) for site in sorted(tested))
    more = (
        f"name={name}",
        "evaluation=none",
        f"strategy.tested=[{names}]",
        f"strategy.quorum={quorum}",
    )
    return _with(Turn(name, kept, ""), *more)


def _with(turn: Turn, *more: str) -> Turn:
    asked = [*turn.overrides, *more]
    return Turn(turn.name, asked, study_digest(load_study(asked)))


def together(turn: Turn, models: Mapping[str, State]) -> Checkpoint:
    """Return what the ensemble's turn begins with. models: each site's own, as its turn left it."""
    study = load_study(turn.overrides)
    whole = {
        f"{place}.{name}": tensor
        for place, site in enumerate(sorted(models))
        for name, tensor in models[site].items()
    }
    travels = shared_state(study, initial_network(study))
    return Checkpoint(digest=turn.digest, model={name: whole[name] for name in travels})


def _check_comparable(kind: Kind, study: Study, result: Mapping[str, Any]) -> None:
    if "shift" not in result:
        raise ValueError(
            "the study did not compare the sites, so there is no matrix to add to; run it with "
            "evaluation=shift"
        )
    if local_names(initial_network(study), study.model):
        why = {
            Kind.OWN_MODELS: "no other site could run the rest",
            Kind.ENSEMBLE: "no other site could run the rest",
            Kind.LEFT_OUT: "a site that does not train has only an untrained one",
        }[kind]
        raise ValueError(
            f"model.local={study.model.local}, or a local batch norm, keeps a part of the model at "
            f"its site, and {why}; sites take turns with a model that travels whole"
        )


def _key(override: str) -> str:
    return override.lstrip("+~").partition("=")[0].partition(".")[0]


def with_turns(kind: Kind, result: Mapping[str, Any], turns: Results) -> dict[str, Any]:
    """Return the result of the whole study with what the turns told in its `shift`."""
    if kind is Kind.LEFT_OUT:
        # The patients' values stayed at their hospitals, so that a gap has no interval.
        rows = [row_of(site, result, turn) for site, turn in turns.items()]
        return with_left_out(result, rows, turns)
    shift = result["shift"]
    metric = Metric(**result["metrics"][shift["metric"]])
    found = {
        (ENSEMBLE if kind is Kind.ENSEMBLE else f"{LOCAL}/{site}"): cells_of_result(
            turn, shift["benefit"], shift["metric"]
        )
        for site, turn in turns.items()
    }
    return {**result, "shift": with_models(shift, found, metric)}
