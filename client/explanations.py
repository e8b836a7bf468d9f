"""A held-out patient of a study explained at the site: pictures with maps laid over them.

The model is the one that the site kept when its page was written; nothing of this leaves.
"""

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from matplotlib import colormaps
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor, nn

from client.cohort import Samples
from client.examples import most_foreground
from client.explain import METHODS, Asked, Explained, explained, explainers_of
from client.page import FOLDER, MODEL_SUFFIX, add_explanation
from client.site import Site
from client.site_data import cohort_of
from common.config import load_study
from common.models.initial import start_network
from common.models.registry import build_model
from common.schema import SettingsError
from common.secret_files import private_folder, replace_file
from common.seeding import seed
from common.study import Study
from common.tasks.registry import build_task
from common.tasks.task import with_mirrored
from common.tensor_files import read_tensors


@dataclass(frozen=True)
class Case:
    """One image of a patient, and what the model says of it."""

    patient: str
    of_class: str
    """The class whose maps these are: the model's answer; of a segmentation its largest class."""
    found: list[Explained]
    picture: Path
    """Every map over the image, one picture."""
    page: Path | None
    """The site's own page of the study, which has the picture too; None if there is none."""


def explain(site: Site, study_hash: str, patient: str, methods: Sequence[str]) -> Case:
    """Explain the model of a study on one held-out patient, and draw it into the site's folder.

    study_hash: the study's digest, or how it begins. methods: names; none: all that fit.

    Raises:
        SettingsError: no such study, patient or method at this site; the message says which are.
    """
    model = _kept(site.state_path / FOLDER, study_hash)
    state, about = read_tensors(model)
    overrides = tuple(about["overrides"])
    study = load_study(overrides)
    if study.data.covariates is not None:
        raise SettingsError(
            f"data.covariates={list(study.data.covariates)}: a map over the image would not say "
            "what these do to the answer; explain a study of images alone"
        )
    if not study.task.classes:
        raise SettingsError(
            f"task.name={study.task.name} has no classes, and an explanation is of a class; there "
            "is none of this study"
        )
    network = start_network(study)
    network.load_state_dict(state)
    chosen = _chosen(methods, list(explainers_of(network.eval())))
    held_out = cohort_of(site.manifest_path, overrides).held_out
    place = _place_of(held_out, patient)
    image_1CS, target = held_out.images[place : place + 1], held_out.targets[place]
    of_class, answered = _answer(network, image_1CS, study)
    untrained = untrained_like(study)
    lesion_S = target[0] == of_class if study.task.dense else None
    asked = Asked(network, image_1CS, of_class)
    found = [explained(method, asked, untrained, lesion_S) for method in chosen]
    name = _names(study)[of_class]
    name = name if answered else f"nothing; maps of {name}"
    flip = len(held_out.spacing_mm[place]) == 3
    stem = f"{model.stem}-{re.sub('[^A-Za-z0-9_-]', '_', patient)}"
    path = _drawn(site, stem, patient, name, found, image_1CS[0].mean(0), lesion_S, flip)
    page = add_explanation(model, patient, name, path.read_bytes())
    return Case(patient, name, found, path, page)


def untrained_like(study: Study) -> nn.Module:
    """Return the study's network with random weights: what a study starts from may have learned."""
    network = build_model(study.model, seed(study.seed, "random weights")).eval()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for parameter in network.parameters():
            if parameter.ndim > 1:
                nn.init.kaiming_normal_(parameter)
    return network


def _kept(folder: Path, study_hash: str) -> Path:
    known = sorted(folder.glob(f"*{MODEL_SUFFIX}")) if folder.is_dir() else []
    fitting = [path for path in known if path.stem.startswith(study_hash[:16])]
    if len(fitting) != 1:
        names = ", ".join(path.stem for path in known) or "none"
        raise SettingsError(
            f"--study {study_hash} names {len(fitting)} studies whose model this site has kept; "
            f"give one of: {names}; a model is kept when its study's last round is evaluated here"
        )
    return fitting[0]


def _chosen(methods: Sequence[str], fitting: list[str]) -> list[str]:
    strange = [method for method in methods if method not in fitting]
    if strange:
        known = [m for m in strange if m in METHODS]
        why = "does not fit this network" if known else "is not known"
        raise SettingsError(f"--method {strange[0]} {why}; those that fit: {', '.join(fitting)}")
    return list(methods) or fitting


def _place_of(held_out: Samples, patient: str) -> int:
    indices = held_out.patient_indices()
    if patient not in indices:
        some = ", ".join(list(indices)[:10]) or "none"
        raise SettingsError(
            f"--case {patient!r} is no held-out patient of this study here; among them are: {some}"
        )
    own = indices[patient]
    return own[most_foreground(held_out.targets[torch.tensor(own)])]


def _answer(network: nn.Module, image_1CS: Tensor, study: Study) -> tuple[int, bool]:
    """Return the class that is explained, and whether it is the network's answer.

    Of a segmentation it is the largest class that was found, of several labels the likeliest; where
    none was found, the likeliest.
    """
    task = build_task(study.task)

    def ask(image: Tensor) -> Tensor:
        return task.activate(network(image))

    with torch.no_grad():
        found_1K = with_mirrored(ask(image_1CS), ask, image_1CS, study.task)
    answers = found_1K.argmax(1).flatten()
    if not study.task.dense:
        # Of several labels none may be the answer.
        return int(answers[0]), study.task.name != "multilabel" or float(found_1K.max()) >= 0.5
    counts = torch.bincount(answers, minlength=found_1K.shape[1])[1:]
    if counts.any():
        return int(counts.argmax()) + 1, True
    return int(found_1K.flatten(2).mean(2)[0, 1:].argmax()) + 1, False


def _names(study: Study) -> list[str]:
    return ["background", *study.task.classes] if study.task.dense else list(study.task.classes)


def _drawn(
    site: Site,
    stem: str,
    patient: str,
    of_class: str,
    found: Sequence[Explained],
    image_S: Tensor,
    lesion_S: Tensor | None,
    flip: bool,
) -> Path:
    """Write one picture of all maps; of a volume the slice where the first map is highest."""
    figure = Figure(figsize=(2.6 * (1 + len(found)), 3.1), layout="constrained")
    axes = figure.subplots(1, 1 + len(found), squeeze=False)[0]
    at = _slice_of(found[0].map_S) if image_S.ndim == 3 else None
    image = _plane(image_S.numpy(), at, flip)
    truth = None if lesion_S is None else _plane(lesion_S.numpy().astype(float), at, flip)
    for place, axis in enumerate(axes):
        axis.set_axis_off()
        axis.imshow(image.T, cmap="gray")
        if truth is not None and 0 < truth.mean() < 1:
            axis.contour(truth.T, levels=[0.5], colors="#f0a000", linewidths=1)
        if place == 0:
            axis.set_title(f"{patient}\nmodel says: {of_class}", fontsize=8)
            continue
        one = found[place - 1]
        heat = _plane(one.map_S, at, flip)
        axis.imshow(heat.T, cmap=colormaps["inferno"], alpha=0.55)
        axis.set_title(f"{one.method.replace('_', ' ')}\n{verdict_of(one)}", fontsize=8)
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=110)
    folder = site.state_path / FOLDER
    private_folder(folder)
    path = folder / f"{stem}.png"
    replace_file(path, file.getvalue())
    return path


def verdict_of(one: Explained) -> str:
    """Return in words whether a map may be believed."""
    if one.alike is None:
        return "flat: says nothing"
    if not one.trusted:
        return "the same without training!"
    return "" if one.hit is None else ("peak in the lesion" if one.hit else "peak elsewhere")


def _slice_of(map_S: NDArray[np.float64]) -> int:
    return int(np.unravel_index(map_S.argmax(), map_S.shape)[-1])


def _plane(values: NDArray[np.float64], at: int | None, flip: bool) -> NDArray[np.float64]:
    plane = values if at is None else values[..., at]
    return plane[:, ::-1] if flip else plane
