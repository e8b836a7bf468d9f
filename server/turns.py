"""What only a study of its own can tell: a site's models everywhere, all sites', or all but its.

Over a real network every turn is a study with a digest of its own. Every site's data officer
approves it and every ledger is charged for it, so a site's own model travels only where the site
that made it and the sites that test it have both agreed; with differential privacy it is private.
The ensemble of these models is tested where they all went, in a study that trains nothing. A
site's personal model is made anew, under the study's privacy: it trains the final one further.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from typing import Any

from torch import Tensor

from common.config import load_study, study_digest
from common.contract import LOCAL, PERSONAL
from common.models.registry import local_names
from common.state import State, arrays_of, digest_of
from common.strategy_config import BY_METRIC
from common.study import Study
from common.tasks.task import Metric
from common.training_config import learning_rate
from server.checkpoint import Checkpoint
from server.evaluation.left_out import row_of, with_left_out
from server.evaluation.shift import ENSEMBLE, FEDERATED, cells_of_result, with_models
from server.run import initial_network, shared_state


@dataclass(frozen=True)
class Turn:
    """A study of which one site is the subject, or of the ensemble all."""

    name: str
    overrides: list[str]
    begins_with: dict[str, Tensor] | None = None
    """The tensors of its first round; None: those of an untrained network."""

    @cached_property
    def digest(self) -> str:
        """Of the study, as sites approve it."""
        return study_digest(load_study(self.overrides))

    def checkpoint(self) -> Checkpoint | None:
        """Return what its folder is to have before it starts; None where nothing."""
        if self.begins_with is None:
            return None
        return Checkpoint(digest=self.digest, model=self.begins_with)


Results = Mapping[str, Mapping[str, Any]]
"""By site: result.json of its turn."""
_ALONE = (
    "compression=none",
    "training.logit_adjustment=null",
    "strategy.combine=mean",
    "strategy.faulty=null",
    "strategy.fraction=1.0",
    "strategy.weight_by=uniform",
    "strategy.proximal_mu=0.0",
    "strategy.averaged_rounds=null",
    "strategy.control_variates=null",
    *(f"strategy.{name}=null" for name in BY_METRIC),
    "strategy.server_optimizer.name=sgd",
    "strategy.server_optimizer.lr=1.0",
    "strategy.server_optimizer.momentum=0.0",
)
"""Where one site trains: the next model is its update, trained as a site trains its own at home."""


class Kind(StrEnum):
    """What the sites take turns in."""

    OWN_MODELS = "own-models"
    """A site trains alone, all are tested."""
    PERSONAL = "personal"
    """A site trains the final model further, as its personal one, and all are tested."""
    LEFT_OUT = "left-out"
    """All but one train, all are tested."""
    ENSEMBLE = "ensemble"
    """One turn for all: the own models together are tested, and nobody trains."""

    def row(self, site: str) -> str:
        """Return the name of a turn's row of the matrix; an ensemble's has no site."""
        rows = {Kind.OWN_MODELS: f"{LOCAL}/{site}", Kind.PERSONAL: f"{PERSONAL}/{site}"}
        return rows.get(self, ENSEMBLE)


def turns_of(
    kind: Kind,
    overrides: list[str],
    agreed: Iterable[str],
    result: Mapping[str, Any],
    models: Mapping[str, State] | None = None,
) -> dict[str, Turn]:
    """Return each turn, by the site that it is about; the ensemble's by that word.

    overrides, result: of the study with all sites, which has ended. agreed: all that are asked to a
    turn; who did not take part in the study trains in none. models: what turns begin with, for an
    ensemble each site's own model, for personal ones the final one of FEDERATED.

    Raises:
        ValueError: the study has no model, or none that is whole; too few sites took part; it asked
            for no personal models.
    """
    if result["status"] not in ("completed", "partial"):
        raise ValueError(
            f"the study is {result['status']} and has no model to compare with; resume it first"
        )
    study = load_study(overrides)
    _check_comparable(kind, study, result)
    training, everybody = _training(study, result), set(agreed)
    if kind is Kind.ENSEMBLE:
        whole = _turn(f"{study.name}_{ENSEMBLE}", overrides, everybody, 1)
        return {ENSEMBLE: _together(_with(whole, f"model.members={len(training)}"), models or {})}
    if kind is Kind.LEFT_OUT:
        rest, quorum = everybody - set(training), min(study.strategy.quorum, len(training) - 1)
        name = f"{study.name}_without_"
        return {s: _turn(name + s, overrides, rest | {s}, quorum) for s in training}
    turns = {}
    for site in training:
        called = PERSONAL if kind is Kind.PERSONAL else "only"
        turn = _turn(f"{study.name}_{called}_{site}", overrides, everybody - {site}, 1)
        # Each evaluation is charged at every site, and one at the end is what the turn is for.
        turn = _with(_without(turn, "compression"), *_ALONE, f"evaluate_every={study.rounds}")
        personal = kind is Kind.PERSONAL
        turns[site] = _personal(turn, study, models or {}) if personal else turn
    return turns


def _training(study: Study, result: Mapping[str, Any]) -> list[str]:
    """Return the sites that trained in the study; at least two."""
    tested = study.strategy.tested or []
    training = [
        site
        for site, about in result["sites"].items()
        if about["patients_train"] > 0 and site not in tested
    ]
    if len(training) < 2:
        raise ValueError(f"{len(training)} site trained; to take turns there must be two")
    return training


def _turn(name: str, overrides: Sequence[str], tested: Iterable[str], quorum: int) -> Turn:
    # In quotes: a site may be called 2024, which is a number else.
    names = ",".join(repr(site) for site in sorted(tested))
    more = (
        f"name={name}",
        "evaluation=none",
        f"strategy.tested=[{names}]",
        f"strategy.quorum={quorum}",
    )
    return _with(_without(Turn(name, list(overrides)), "evaluation", "name"), *more)


def _without(turn: Turn, *groups: str) -> Turn:
    return Turn(turn.name, [o for o in turn.overrides if _key(o) not in groups])


def _with(turn: Turn, *more: str) -> Turn:
    return Turn(turn.name, [*turn.overrides, *more])


def _beginning(turn: Turn, model: State) -> Turn:
    study = load_study(turn.overrides)
    begins = {name: model[name] for name in shared_state(study, initial_network(study))}
    told = _with(turn, f"begins_with='{digest_of(arrays_of(begins))}'")
    return Turn(told.name, told.overrides, begins)


def _together(turn: Turn, models: Mapping[str, State]) -> Turn:
    """Return the ensemble's turn with each site's own model, as its turn left it."""
    whole = {
        f"{place}.{name}": tensor
        for place, site in enumerate(sorted(models))
        for name, tensor in models[site].items()
    }
    return _beginning(turn, whole)


def _personal(turn: Turn, study: Study, models: Mapping[str, State]) -> Turn:
    """Return the turn of a site's personal model, which is trained as client/own_models.py says.

    One round, at the pace of the study's last, of as many steps as the personal rounds have, held
    to the final model; it travels whole, and is the model then. The study's privacy stays.
    """
    if study.evaluation is None or not study.evaluation.personal_rounds:
        raise ValueError(
            "the study made no personal models (evaluation.personal_rounds=0), so there is nothing "
            "to try elsewhere; run it with evaluation=shift"
        )
    if FEDERATED not in models:
        raise ValueError(
            "the study's final model is no longer in its folder, and each personal one begins with "
            "it; put model.safetensors back"
        )
    asked, training = study.evaluation, study.training
    more = [
        "rounds=1",
        f"training.lr={learning_rate(training, study.rounds, study.rounds)!r}",
        "training.schedule=constant",
        f"training.local_epochs={asked.personal_rounds * training.local_epochs}",
        f"strategy.proximal_mu={asked.personal_mu!r}",
    ]
    if training.local_steps is not None:
        more.append(f"training.local_steps={asked.personal_rounds * training.local_steps}")
    return _beginning(_with(turn, *more), models[FEDERATED])


def _check_comparable(kind: Kind, study: Study, result: Mapping[str, Any]) -> None:
    if "shift" not in result:
        raise ValueError(
            "the study did not compare the sites, so there is no matrix to add to; run it with "
            "evaluation=shift"
        )
    if local_names(initial_network(study), study.model):
        why = "no other site could run the rest"
        if kind is Kind.LEFT_OUT:
            why = "a site that does not train has only an untrained one"
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
        kind.row(site): cells_of_result(turn, shift["benefit"], shift["metric"])
        for site, turn in turns.items()
    }
    return {**result, "shift": with_models(shift, found, metric)}
