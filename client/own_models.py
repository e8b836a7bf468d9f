"""The models that a hospital has for itself, against which the federated one is held.

`local`: its own data alone, from the study's start, for the study's rounds. `personal`: the
federated model, trained further on its own data (Wang et al., 2019, Federated evaluation of
on-device personalization). Neither is private, and neither leaves: what leaves are metrics. Both
are kept at the site, which may use them.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from torch import Tensor, nn

from client.alone import train_alone
from client.local_round import Place
from client.progress import OnProgress
from client.resident import new_network
from client.work import Work, release_key
from common.contract import LOCAL, PERSONAL
from common.state import state_of
from common.study import EvaluationConfig, Study
from common.tensor_files import read_tensors, write_tensors

OWN_MODEL, PERSONAL_MODEL = "own_model.safetensors", "personal_model.safetensors"


def own_models(
    work: Work, place: Place, federated: dict[str, Tensor], folder: Path, on_progress: OnProgress
) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """Yield the models that the study's `evaluation` asks for, by name.

    federated: the whole state of the incoming model here. folder: where they are kept; the local
    one is trained once a study. on_progress: called with (0, 0) after each step; it may raise.
    """
    asked = work.study.evaluation
    if asked is None:
        return
    if asked.own_model:
        yield LOCAL, _local(work, place, folder, on_progress)
    if asked.personal_rounds:
        personal = _personal(work, place, federated, asked, on_progress)
        write_tensors(folder / PERSONAL_MODEL, personal, work.digest)
        yield PERSONAL, personal


def _personal(
    work: Work,
    place: Place,
    federated: dict[str, Tensor],
    asked: EvaluationConfig,
    on_progress: OnProgress,
) -> dict[str, Tensor]:
    """Return argmin_v F_i(v) + mu/2 ||v - w||^2 (Ditto, Li et al., ICML 2021, Eq. 1), nearly.

    It begins at w, and takes the steps of so many rounds as one round of the pace of the last.
    """
    model, training = new_network(work.study), work.study.training
    model.load_state_dict(federated)
    times = asked.personal_rounds
    steps = None if training.local_steps is None else times * training.local_steps
    longer = replace(training, local_epochs=times * training.local_epochs, local_steps=steps)
    study = replace(work.study, training=longer)
    last = range(study.rounds, study.rounds + 1)
    label = f"{place.site} {PERSONAL}"
    _train(model, work, study, place, label, last, on_progress, asked.personal_mu)
    return state_of(model)


def _local(work: Work, place: Place, folder: Path, on_progress: OnProgress) -> dict[str, Tensor]:
    path = folder / OWN_MODEL
    known_as = release_key(work, 0, {}, work.cohort.train, place.device, place.key)
    if path.exists():
        state, about = read_tensors(path)
        if about == known_as:
            return state
    model = new_network(work.study)
    rounds = range(1, work.study.rounds + 1)
    _train(model, work, work.study, place, place.site, rounds, on_progress)
    state = state_of(model)
    write_tensors(path, state, known_as)
    return state


def _train(
    model: nn.Module,
    work: Work,
    study: Study,
    place: Place,
    label: str,
    rounds: range,
    on_progress: OnProgress,
    mu: float = 0.0,
) -> None:
    model.to(place.device)

    def heard(_: int) -> None:
        on_progress(0, 0)

    train_alone(model, study, work.cohort.train, label, rounds, place.device, heard, mu)
