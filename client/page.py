"""A site's own page of a study: its worst held-out patients, which nobody else ever sees.

One HTML file without scripts that loads nothing from anywhere; it holds images, so its owner alone
may read it, and it stays in the site's state folder.
"""

import base64
import hashlib
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from torch import Tensor

from client.evaluation import patient_rows
from client.examples import example_of, most_foreground
from client.work import Work
from common.pictures import draw
from common.secret_files import private_folder, replace_file
from common.state import state_of
from common.tasks.task import Metric, Sums, Task
from common.tensor_files import write_tensors

FOLDER, TEMPLATE, MODEL_SUFFIX = "pages", "page.html.jinja", ".safetensors"
EXPLAINED, MARK = "explained.html.jinja", "<!-- explained patients -->"
SHOWN = 12
"""Worst patients that are drawn."""


@dataclass(frozen=True)
class PatientLine:
    """One held-out patient."""

    patient: str
    values: Mapping[str, float | None]


def write_page(state: Path, site: str, work: Work, probabilities: Tensor) -> Path:
    """Write the page of the study's final model, and keep the model beside it; return the page.

    probabilities: [N, K, ...] of the held-out samples, of one patient or more.
    """
    samples, study = work.cohort.held_out, work.study
    lines = worst_first(patient_rows(probabilities, samples, work.task), work.task)
    indices = samples.patient_indices()
    examples = []
    for line in lines[:SHOWN]:
        own = indices[line.patient]
        place = own[most_foreground(samples.targets[torch.tensor(own)])]
        examples.append(example_of(line.patient, samples, place, probabilities[place], study))
    page = (
        _environment()
        .get_template(TEMPLATE)
        .render(
            site=site,
            study=study,
            digest=work.digest,
            metrics=work.task.metrics,
            headline=study.task.headline,
            lines=lines,
            pictures=draw(examples),
            mark=MARK,
        )
    )
    private_folder(state / FOLDER)
    path = state / FOLDER / f"{work.digest[:16]}.html"
    replace_file(path, page.encode())
    # For questions that come later (client/explanations.py).
    about = {"overrides": list(work.overrides)}
    write_tensors(path.with_suffix(MODEL_SUFFIX), state_of(work.model), about)
    return path


def add_explanation(model: Path, patient: str, of_class: str, picture: bytes) -> Path | None:
    """Lay a picture of a patient's maps into the page beside the model; return the page.

    An older one of the same patient makes room. None where there is no page, or one of an older
    version that has no place for it. picture: PNG.
    """
    path = model.with_suffix(".html")
    if not path.is_file() or MARK not in path.read_text():
        return None
    name = hashlib.sha256(patient.encode()).hexdigest()[:16]
    figure = (
        _environment()
        .get_template(EXPLAINED)
        .render(
            id=name,
            patient=patient,
            of_class=of_class,
            picture=base64.b64encode(picture).decode(),
        )
    )
    own = rf'<figure class="explained" id="{name}">.*?<!-- end of {name} -->\n?'
    page = re.sub(own, "", path.read_text(), flags=re.DOTALL)
    replace_file(path, page.replace(MARK, f"{MARK}\n{figure}\n").encode())
    return path


def worst_first(rows: Mapping[str, Sums], task: Task) -> list[PatientLine]:
    """Return each patient's own metrics, by the headline; those without one come last."""
    lines = [
        PatientLine(
            patient,
            {n: v if math.isfinite(v) else None for n, v in task.score(sums).items()},
        )
        for patient, sums in rows.items()
    ]
    name = _ranked_by(lines, task)
    metric = task.metrics[name]

    def badness(line: PatientLine) -> tuple[bool, float, str]:
        value = line.values[name]
        return value is None, _signed(metric, value or 0.0), line.patient

    return sorted(lines, key=badness)


def _ranked_by(lines: list[PatientLine], task: Task) -> str:
    """Return the headline, or the first metric that single patients have, as AUROC is none.

    Of answers an image it is one that all patients have: who has images of one class alone would
    else stand last, however wrong the answers are.
    """
    names = [task.config.headline, *task.metrics]
    enough = any if task.config.dense else all
    return next(
        (name for name in names if enough(line.values[name] is not None for line in lines)),
        names[0],
    )


def _signed(metric: Metric, value: float) -> float:
    return value if metric.higher_is_better else -value


def _environment() -> Environment:
    return Environment(
        autoescape=True,
        undefined=StrictUndefined,
        loader=FileSystemLoader(Path(__file__).parent),
        trim_blocks=True,
        lstrip_blocks=True,
    )
