"""A model on a folder of images: masks or classes, one table of all, and what was broken."""

import csv
import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from client.cases import image_for
from client.evaluation import BATCH
from client.prediction.answers import Answer, answers_to
from client.prediction.inputs import Input
from client.prediction.masks import DICOM, PNG, kind_of, write_map
from client.prediction.passes import Passes
from client.readers import BadFileError, Picture
from common.domain import Domain
from common.files import write_json
from common.finished import Finished
from common.secret_files import private_folder, replace_file

TABLE, ABOUT = "predictions.csv", "about.json"
MASK, ENTROPY, HEAT = "_mask", "_entropy", "_heat"
OK, BROKEN = "ok", "broken"
INSIDE, OUTSIDE, UNKNOWN = "inside", "outside", "unknown"
NO_DOMAIN = (
    "the run does not tell how its sites' images look; it does with evaluation=shift, over two "
    "sites or more that let it leave"
)
SEVERAL_IMAGES = (
    "the sites' patients may have several images each, of which the mean was told; a single image "
    "may be further away than that"
)


@dataclass(frozen=True, kw_only=True)
class Row:
    """One image in the table."""

    name: str
    status: str
    """OK or BROKEN."""
    reason: str
    """Why it is broken, or why its mask is no DICOM-SEG; else empty."""
    mask: str
    """File of the mask, below the output folder; empty without one."""
    answer: Answer | None
    domain: str
    """INSIDE, OUTSIDE or UNKNOWN; empty of a broken file."""
    domain_note: str
    """Why it is unknown; else empty."""
    distance: float | None
    """From the domain's centre, over its limit; None where it is unknown."""
    volume_ml: dict[str, float] | None
    """Of each class of the mask; None where the file does not tell its voxels' size."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How a study's model is used."""

    output: Path
    augmentation: str = "none"
    """Test-time augmentation, a name of client/prediction/passes.py."""
    entropy_maps: bool = False
    """Whether the entropy of each voxel is written beside the mask."""
    heat_maps: bool = False
    """Whether it is drawn where a classification's model looked."""
    device: str = "cpu"


def predict(
    finished: Finished,
    inputs: Sequence[Input],
    settings: Settings,
    on_row: Callable[[Row], None] = lambda _: None,
) -> list[Row]:
    """Write masks and the table of all answers into the output folder; return the table's rows.

    The folder is the owner's alone if this makes it. on_row: called once an image, in order.

    Raises:
        ValueError: the model's probabilities are not finite.
    """
    device = torch.device(settings.device)
    finished.network.to(device)
    passes = Passes(
        network=finished.network,
        study=finished.study,
        task=finished.task,
        device=device,
        augmentation=settings.augmentation,
    )
    private_folder(settings.output)
    rows = []
    for row in _rows(finished, inputs, settings, passes):
        rows.append(row)
        on_row(row)
    replace_file(settings.output / TABLE, table_of(rows, finished).encode())
    write_json(settings.output / ABOUT, _about(finished, settings))
    return rows


def _rows(
    finished: Finished, inputs: Sequence[Input], settings: Settings, passes: Passes
) -> Iterator[Row]:
    domain = finished.domain
    for some in _batches(inputs, passes):
        read = [(one, picture) for one, picture in some if isinstance(picture, Picture)]
        answers = iter(answers_to([picture for _, picture in read], passes))
        for one, picture in some:
            if isinstance(picture, BadFileError):
                yield _broken(one, picture)
                continue
            answer = next(answers)
            try:
                mask, note = _written(one, picture, answer, settings, passes)
            except BadFileError as error:
                yield _broken(one, error)
            else:
                why = NO_DOMAIN if domain is None else _unknown(domain, finished, picture)
                distance = None if why or domain is None else domain.distance(answer.features_F)
                yield _answered(one, picture, answer, (mask, note), (distance, why))


def _batches(
    inputs: Sequence[Input], passes: Passes
) -> Iterator[list[tuple[Input, Picture | BadFileError]]]:
    """Return the images read, in order: pictures some at a time, each volume by itself."""
    some: list[tuple[Input, Picture | BadFileError]] = []
    for one in inputs:
        picture: Picture | BadFileError
        try:
            picture = image_for(one.path, passes.study.data)
        except BadFileError as error:
            picture = error
        volume = isinstance(picture, Picture) and len(picture.spacing_mm) > 2
        if some and (volume or len(some) == BATCH):
            yield some
            some = []
        some.append((one, picture))
        if volume:
            yield some
            some = []
    if some:
        yield some


def _broken(one: Input, error: BadFileError) -> Row:
    return Row(
        name=one.name,
        status=BROKEN,
        reason=f"{error.reason}; {error.remedy}",
        mask="",
        answer=None,
        domain="",
        domain_note="",
        distance=None,
        volume_ml=None,
    )


def _written(
    one: Input, picture: Picture, answer: Answer, settings: Settings, passes: Passes
) -> tuple[str, str]:
    """Write what an image is answered by, and return the mask's file and a note, or nothing."""
    stem = settings.output / one.stem
    if settings.entropy_maps and answer.entropy_S is not None:
        write_map(one.path, picture, answer.entropy_S, _named(stem, ENTROPY))
    if answer.classes_S is None:
        if settings.heat_maps:
            _write_heat(one, picture, answer, passes, _named(stem, HEAT))
        return "", ""
    note = ""
    if kind_of(one.path) == DICOM:
        # A site without DICOM does without its libraries.
        from client.prediction.dicom import segmentation_of

        try:
            mask = segmentation_of(one.path, answer.classes_S, passes.study)
            return _kept(mask, _named(stem, MASK + DICOM), settings.output), ""
        except BadFileError as error:
            note = f"{error.reason}; its mask is a NIfTI or a PNG"
    path = write_map(one.path, picture, answer.labels(), _named(stem, MASK))
    return str(path.relative_to(settings.output)), note


def _write_heat(
    one: Input,
    picture: Picture,
    answer: Answer,
    passes: Passes,
    path: Path,
) -> None:
    # Captum, which only this needs, is no part of the smallest installation.
    from client.prediction.heat import heat_of

    heat_RKC = heat_of(picture, answer, passes)
    if kind_of(one.path) == DICOM:
        from client.prediction.dicom import capture_of

        scores = ", ".join(f"{name} {score:.3f}" for name, score in answer.scores.items())
        said = f"{answer.label} ({scores}); for research, not for diagnosis"
        capture = capture_of(one.path, heat_RKC, passes.study, said)
        _kept(capture, path.with_name(path.name + DICOM), path.parent)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(heat_RKC).save(path.with_name(path.name + PNG))


def _kept(dataset: Any, path: Path, below: Path) -> str:  # noqa: ANN401 - pydicom may be absent
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset.save_as(path, enforce_file_format=True)
    return str(path.relative_to(below))


def _named(stem: Path, what: str) -> Path:
    return stem.with_name(stem.name + what)


def _answered(
    one: Input,
    picture: Picture,
    answer: Answer,
    written: tuple[str, str],
    place: tuple[float | None, str],
) -> Row:
    (mask, note), (distance, why) = written, place
    return Row(
        name=one.name,
        status=OK,
        reason=note,
        mask=mask,
        answer=answer,
        domain=UNKNOWN if distance is None else (OUTSIDE if distance > 1 else INSIDE),
        domain_note=why,
        distance=distance,
        volume_ml=_volumes(answer, picture),
    )


def _volumes(answer: Answer, picture: Picture) -> dict[str, float] | None:
    if picture.affine is None:
        return None
    one_ml = float(torch.tensor(picture.spacing_mm, dtype=torch.float64).prod()) / 1000
    return {name: count * one_ml for name, count in answer.voxels.items()}


def _unknown(domain: Domain, finished: Finished, picture: Picture) -> str:
    """Return why it is not known whether an image is strange; empty where it is."""
    one_sample = len(picture.spacing_mm) == finished.study.data.spatial_dims
    if domain.unknown is None and one_sample and not finished.one_image_a_patient:
        return SEVERAL_IMAGES
    return domain.unknown or ""


def table_of(rows: Sequence[Row], finished: Finished) -> str:
    """Return the rows as CSV with a header."""
    dense, classes = finished.task.config.dense, finished.task.config.classes
    of_mask = [f"{what}_{name}" for what in ("voxels", "ml") for name in classes]
    of_class = [f"score_{name}" for name in classes]
    header = ["file", "status", "reason", *(["mask", *of_mask] if dense else ["answer", *of_class])]
    header += ["entropy", "domain", "domain_distance", "domain_note"]
    text = io.StringIO()
    writer = csv.DictWriter(text, header, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows({k: v for k, v in _cells(row).items() if k in header} for row in rows)
    return text.getvalue()


def _cells(row: Row) -> dict[str, Any]:
    cells: dict[str, Any] = {"file": row.name, "status": row.status, "reason": row.reason}
    if row.answer is None:
        return cells
    cells |= {"mask": row.mask, "answer": row.answer.label}
    cells |= {f"score_{name}": f"{p:.6f}" for name, p in row.answer.scores.items()}
    cells |= {f"voxels_{name}": count for name, count in row.answer.voxels.items()}
    cells |= {f"ml_{name}": f"{ml:.3f}" for name, ml in (row.volume_ml or {}).items()}
    cells |= {"entropy": f"{row.answer.entropy:.4f}", "domain": row.domain}
    if row.distance is not None:
        cells["domain_distance"] = f"{row.distance:.3f}"
    return {**cells, "domain_note": row.domain_note}


def _about(finished: Finished, settings: Settings) -> dict[str, Any]:
    return {
        "study": finished.study.name,
        "study_digest": finished.digest,
        "rounds": finished.rounds,
        "test_time_augmentation": settings.augmentation,
        "device": settings.device,
        "wardround": version("wardround"),
        "torch": torch.__version__,
    }
