"""The verb compress: a finished run's model made small, and what that costs.

In int8 (common/models/int8.py), and as a student: a smaller network that learns the model's answers
on the sites' own images, in a federation of its own. Accuracy, bytes and time stand side by side.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.nn import functional as F

from client.cohort import Cohort, Samples
from client.evaluation import chosen_by, patient_rows, predict
from client.training import PlainGradient, build_optimizer, random_part, train_round
from common.config import load_study, travelling
from common.covariates import width_of
from common.files import read_json, write_json
from common.models.int8 import quantised, size_bytes, write_int8
from common.models.late_fusion import with_covariates
from common.schema import SettingsError
from common.seeding import generator, seed
from common.state import state_of
from common.study import PrivacyConfig, Study
from common.tasks.one_output import of_both
from common.tasks.registry import build_task
from common.tasks.task import Task
from common.tensor_files import write_tensors
from common.training_config import learning_rate
from common.transforms import prepare
from server.run import RESULT, initial_network
from simulation.baselines import cohorts_of, finished_network, trained_at
from simulation.run import Simulation, reopened

FILE, INT8, STUDENT = "compressed.json", "model-int8.safetensors", "student.safetensors"
CALIBRATION_IMAGES = 128
NOBODYS_SCALES = (1, 4, 16)
"""Voxels along a side of what noise of each scale is made of."""
REPEATS = 15
SOFTNESS = 2.0
"""Temperature of the teacher's answers (Hinton et al., 2015, Sec. 2)."""
TASKS = ("classification", "segmentation")
CPU = torch.device("cpu")


@dataclass(frozen=True, kw_only=True)
class Row:
    """One form of the model."""

    form: str
    headline: float
    """Mean over the sites."""
    kilobytes: float
    milliseconds: float
    """Of one image on one thread of this machine's processor, whatever else it does: the fastest of
    several passes."""


def compress(folder: Path, student: Sequence[str], console: Console) -> None:
    """Print the forms of a finished run's model as a table; write them into its folder.

    student: overrides of the student's network, as model.channels=[8,16]; empty: there is none.

    Raises:
        SettingsError: the run is not finished, parts of its model stayed at the sites, or a student
            was asked of a private study.
        Int8Error: the network cannot be computed in 8 bits.
    """
    run = reopened(folder)
    study = run.study
    network = finished_network(run)
    smaller = _student_study(run, student) if student else None
    cohorts = cohorts_of(run, sorted(read_json(run.folder / RESULT)["sites"]))
    trained = trained_at(run, cohorts)
    seen = calibration_images(study, trained)
    if smaller is not None:
        # Refused before it learns, which takes as long as the study did.
        quantised(initial_network(smaller), seen[:1])
    rows, tensors = _forms("", study, network.eval(), seen, cohorts)
    write_int8(run.folder / INT8, tensors, {"overrides": travelling(run.overrides)})
    if smaller is not None:
        learned = distilled(smaller, network, trained)
        write_tensors(run.folder / STUDENT, state_of(learned))
        rows += _forms("student, ", smaller, learned, seen, cohorts)[0]
    write_json(run.folder / FILE, {"rows": [vars(row) for row in rows]})
    console.print(table_of(study, rows))
    console.print(f"result  {run.folder / FILE}", highlight=False, soft_wrap=True)


def _forms(
    of: str, study: Study, network: nn.Module, seen: Tensor, cohorts: Mapping[str, Cohort]
) -> tuple[list[Row], dict[str, Tensor]]:
    """Return the rows of a network in float32 and in int8, and what the latter's file holds."""
    whole = _row(f"{of}float32", network, size_bytes(state_of(network)), cohorts, study)
    small, tensors = quantised(network, seen)
    return [whole, _row(f"{of}int8", small, size_bytes(tensors), cohorts, study)], tensors


def _student_study(run: Simulation, overrides: Sequence[str]) -> Study:
    strange = [override for override in overrides if not override.startswith("model")]
    if strange:
        raise SettingsError(
            f"{strange[0]} is no setting of a student's network; give model=NAME or model.KEY=VALUE"
        )
    if run.study.task.name not in TASKS:
        raise SettingsError(
            f"task.name={run.study.task.name}: a student learns the probabilities of classes; give "
            f"a run of one of: {', '.join(TASKS)}"
        )
    if run.study.privacy.private:
        raise SettingsError(
            "the run is private, and a student learns from the patients' images without privacy; "
            "leave the student out, or train the smaller network privately by itself"
        )
    return load_study([*travelling(run.overrides), *overrides])


def calibration_images(study: Study, trained: Mapping[str, Samples]) -> Tensor:
    """Return images of all sites' training patients, evenly, about CALIBRATION_IMAGES.

    Of a private study they are images of nobody, since the ranges that are seen on them are told as
    they are, without noise.
    """
    if study.privacy.private:
        return images_of_nobody(study)
    each = max(1, CALIBRATION_IMAGES // len(trained))
    parts = []
    for samples in trained.values():
        images = samples.images
        parts.append(images[:: max(1, len(images) // each)][:each])
    return torch.cat(parts)


def images_of_nobody(study: Study) -> Tensor:
    """Return CALIBRATION_IMAGES of noise at several scales, normalised as a site's images are.

    Its exponential is taken, since most of an image is dark and little of it bright.
    """
    data, draws = study.data, generator(seed(study.seed, "images of nobody"))
    run, spacing_mm = prepare(data), data.spacing_mm or [1.0] * data.spatial_dims
    images = []
    for _ in range(CALIBRATION_IMAGES):
        scales = ([max(1, n // coarse) for n in data.size] for coarse in NOBODYS_SCALES)
        fields = (torch.randn(1, data.channels, *small, generator=draws) for small in scales)
        wide = torch.stack([F.interpolate(field, size=list(data.size)) for field in fields])
        image, _, _ = run(wide.mean(0)[0].exp().numpy(), None, spacing_mm)
        images.append(image)
    together = torch.stack(images)
    if data.covariates is None:
        return together
    numbers = torch.rand(len(images), width_of(data.covariates), generator=draws) * 2 - 1
    each = zip(together.split(1), numbers.tolist(), strict=True)  # type: ignore[no-untyped-call]
    return torch.cat([with_covariates(image, said) for image, said in each])


def distilled(study: Study, teacher: nn.Module, trained: Mapping[str, Samples]) -> nn.Module:
    """Return the student of a study's network: federated averaging of what the sites' images teach.

    In each round each site trains on the teacher's answers to its own training images, by the local
    loop of any study, and the mean by patients goes on (McMahan et al., AISTATS 2017).
    """
    task = build_task(study.task)
    teach = replace(task, loss=soft_loss)
    alone = replace(study, privacy=PrivacyConfig())
    taught = {
        site: replace(samples, targets=predict(teacher, samples, task, CPU))
        for site, samples in sorted(trained.items())
    }
    student = initial_network(study)
    patients = sum(samples.num_patients for samples in taught.values())
    for number in range(1, study.rounds + 1):
        begun = state_of(student)
        mean: dict[str, Tensor] = {}
        for site, samples in taught.items():
            student.load_state_dict(begun)
            _learn(student, alone, teach, samples, f"student of {site}", number)
            share = samples.num_patients / patients
            for name, tensor in state_of(student).items():
                part = share * tensor.double()
                mean[name] = mean[name] + part if name in mean else part
        student.load_state_dict({name: mean[name].to(t.dtype) for name, t in begun.items()})
    return student.eval()


def soft_loss(logits: Tensor, answers: Tensor) -> Tensor:
    """Return T^2 times the cross-entropy to the teacher's answers at T (Hinton et al., 2015)."""
    softer = (answers.clamp(min=1e-12).log() / SOFTNESS).softmax(1)
    finest = of_both(logits if logits.ndim == answers.ndim else logits[:, 0])
    return SOFTNESS**2 * F.cross_entropy(finest.float() / SOFTNESS, softer)


def _learn(
    student: nn.Module, study: Study, task: Task, samples: Samples, label: str, number: int
) -> None:
    lr = learning_rate(study.training, number, study.rounds)
    draws, changes = (generator(seed(study.seed, number, label, of)) for of in ("draws", "augment"))
    train_round(
        PlainGradient(student, study.training, len(samples.patients), draws),
        build_optimizer(study.training, student, lr),
        samples,
        task,
        study,
        random_part(study, task, changes),
        CPU,
    )


def _row(
    form: str, network: nn.Module, size: int, cohorts: Mapping[str, Cohort], study: Study
) -> Row:
    task = build_task(study.task)
    scores = []
    for cohort in cohorts.values():
        held_out = cohort.held_out
        if held_out.num_patients:
            decided = _decided(network, cohort, task)
            rows = patient_rows(predict(network, held_out, task, CPU), held_out, decided).values()
            total = {n: np.sum([row[n] for row in rows], axis=0) for n in next(iter(rows))}
            scores.append(decided.score(total)[study.task.headline])
    image = next(c.train.images[:1] for c in cohorts.values() if c.train.num_patients)
    return Row(
        form=form,
        headline=float(np.nanmean(scores)),
        kilobytes=size / 1000,
        milliseconds=fastest_ms(network, image),
    )


def _decided(network: nn.Module, cohort: Cohort, task: Task) -> Task:
    choosing = cohort.choosing
    return chosen_by(lambda: predict(network, choosing, task, CPU), choosing, task)


def fastest_ms(network: nn.Module, images: Tensor) -> float:
    """Return the time of one pass on one thread; the fastest is the one that nothing disturbed.

    It is the thread's own time on the processor: what other programs take of it does not count.
    """
    threads, times = torch.get_num_threads(), []
    torch.set_num_threads(1)
    try:
        with torch.inference_mode():
            for _ in range(REPEATS):
                began = time.thread_time()
                network(images)
                times.append(time.thread_time() - began)
    finally:
        torch.set_num_threads(threads)
    return 1000 * min(times)


def table_of(study: Study, rows: Sequence[Row]) -> Table:
    """Return the forms as a table."""
    table = Table(title=f"{study.name}: its model made small")
    table.add_column("form", no_wrap=True)
    for column in (study.task.headline, "kB", "ms an image", "times as fast"):
        table.add_column(column, justify="right", no_wrap=True)
    for row in rows:
        faster = rows[0].milliseconds / row.milliseconds
        table.add_row(
            row.form,
            f"{row.headline:.3f}",
            f"{row.kilobytes:.0f}",
            f"{row.milliseconds:.2f}",
            f"{faster:.1f}",
        )
    return table
