"""A model on a folder of images: masks or classes, and what was broken."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from client.device import usable_device
from client.evaluation import BATCH
from client.prediction.answers import Answer, answers_to
from client.prediction.inputs import ABOUT, TABLE, Input
from client.prediction.masks import DICOM, PNG, kind_of, whole, write_map
from client.prediction.passes import Passes
from client.prediction.table import BROKEN, INSIDE, OK, OUTSIDE, UNKNOWN, Row, table_of
from client.readers import BadFileError, Picture
from client.row_images import image_for
from common.files import write_json
from common.finished import Finished
from common.schema import SettingsError
from common.secret_files import private_folder, replace_file
from common.tasks.task import Task

MIRRORED = {"none": False, "flip": True}
"""By test-time augmentation: whether an image is looked at mirrored left-right too."""
_NAMES = {mirrored: name for name, mirrored in MIRRORED.items()}
MASK, ENTROPY, HEAT = "_mask", "_entropy", "_heat"
MOST_VOXELS = 2**22
"""Of pictures that are looked at together: several of a scanner, or one of a large camera."""
FAILED = (ValueError, OSError, MemoryError, RuntimeError)
"""What one image may end in: a file that cannot be used or written, too little memory."""
NO_DOMAIN = (
    "the run does not tell how its sites' images look; it does with evaluation=shift, over two "
    "sites or more that let it leave"
)
NOT_OF_THIS = (
    "the run tells how its sites' images look to its last model, model.safetensors, and this is "
    "another"
)
SEVERAL_IMAGES = (
    "the sites' patients may have several images each, of which the mean was told; a single image "
    "may be further away than that"
)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How a study's model is used."""

    output: Path
    augmentation: str | None = None
    """Test-time augmentation, a name of MIRRORED; None: the study's own."""
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

    The folder is the owner's alone if this makes it. on_row: called once an image, in order. The
    table is there also where it ends early.
    """
    device = usable_device(settings.device)
    finished.network.to(device)
    task = _asked(finished.task, settings)
    passes = Passes(network=finished.network, study=finished.study, task=task, device=device)
    private_folder(settings.output)
    write_json(settings.output / ABOUT, _about(finished, task, settings))
    rows: list[Row] = []
    try:
        for row in _rows(finished, inputs, settings, passes):
            rows.append(row)
            on_row(row)
    finally:
        replace_file(settings.output / TABLE, table_of(rows, finished).encode())
    return rows


def _asked(task: Task, settings: Settings) -> Task:
    if settings.augmentation is None:
        return task
    try:
        config = replace(task.config, mirrored=MIRRORED[settings.augmentation])
    except ValueError as error:
        raise SettingsError(f"test-time augmentation {settings.augmentation}: {error}") from error
    return replace(task, config=config)


def _rows(
    finished: Finished, inputs: Sequence[Input], settings: Settings, passes: Passes
) -> Iterator[Row]:
    domain = finished.domain
    for some in batches(inputs, passes):
        read = [(one, picture) for one, picture in some if isinstance(picture, Picture)]
        answers = iter(_answers([picture for _, picture in read], passes))
        for one, picture in some:
            answer = picture if isinstance(picture, Exception) else next(answers)
            if isinstance(picture, Exception) or isinstance(answer, Exception):
                yield _broken(one, answer)
                continue
            try:
                mask, note = _written(one, picture, answer, settings, passes)
            except FAILED as error:
                yield _broken(one, error)
            else:
                why = _unknown(finished, picture)
                distance = None if why or domain is None else domain.distance(answer.features_F)
                yield _answered(one, picture, answer, (mask, note), (distance, why))


def _answers(pictures: Sequence[Picture], passes: Passes) -> list[Answer | Exception]:
    """Return the answers, or why there is none: one picture costs the others nothing."""
    try:
        return list(answers_to(pictures, passes))
    except FAILED as error:
        if len(pictures) == 1:
            return [error]
    return [found for picture in pictures for found in _answers([picture], passes)]


def batches(
    inputs: Sequence[Input], passes: Passes
) -> Iterator[list[tuple[Input, Picture | Exception]]]:
    """Return the images read, in order: pictures some at a time, each volume by itself."""
    some: list[tuple[Input, Picture | Exception]] = []
    voxels = 0
    for one in inputs:
        picture: Picture | Exception
        try:
            picture = image_for(one.path, passes.study.data)
        except FAILED as error:
            picture = error
        own = picture.array_CS.size if isinstance(picture, Picture) else 0
        volume = isinstance(picture, Picture) and len(picture.spacing_mm) > 2
        if some and (volume or len(some) == BATCH or voxels + own > MOST_VOXELS):
            yield some
            some, voxels = [], 0
        some.append((one, picture))
        voxels += own
        if volume:
            yield some
            some, voxels = [], 0
    if some:
        yield some


def _broken(one: Input, error: object) -> Row:
    told = f"{type(error).__name__}: {error}".splitlines()[0]
    return Row(
        name=one.name,
        status=BROKEN,
        reason=f"{error.reason}; {error.remedy}" if isinstance(error, BadFileError) else told,
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
        return "", _heat_note(one, picture, answer, settings, passes)
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


def _heat_note(
    one: Input, picture: Picture, answer: Answer, settings: Settings, passes: Passes
) -> str:
    """Write the heat map where it is wanted; return why there is none, or nothing."""
    if not settings.heat_maps:
        return ""
    try:
        _write_heat(one, picture, answer, passes, _named(settings.output / one.stem, HEAT))
    except BadFileError as error:
        return f"{error.reason}; it has no heat map"
    except FAILED as error:
        return f"it has no heat map ({type(error).__name__})"
    return ""


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
    with whole(path.with_name(path.name + PNG)) as temporary:
        Image.fromarray(heat_RKC).save(temporary)


def _kept(dataset: Any, path: Path, below: Path) -> str:  # noqa: ANN401 - pydicom may be absent
    from client.readers.dicom_files import refusing

    path.parent.mkdir(parents=True, exist_ok=True)
    # An error of pydicom quotes the header.
    with refusing(path, "cannot be written as DICOM"), whole(path) as temporary:
        dataset.save_as(temporary, enforce_file_format=True)
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


def _unknown(finished: Finished, picture: Picture) -> str:
    """Return why it is not known whether an image is strange; empty where it is."""
    domain = finished.domain
    if domain is None:
        told = ((finished.result or {}).get("shift") or {}).get("domain")
        return NO_DOMAIN if told is None else NOT_OF_THIS
    one_sample = len(picture.spacing_mm) == finished.study.data.spatial_dims
    if domain.unknown is None and one_sample and not finished.one_image_a_patient:
        return SEVERAL_IMAGES
    return domain.unknown or ""


def _about(finished: Finished, task: Task, settings: Settings) -> dict[str, Any]:
    return {
        "study": finished.study.name,
        "study_digest": finished.digest,
        "rounds": finished.rounds,
        "test_time_augmentation": _NAMES[bool(task.config.mirrored)],
        "temperature": getattr(task.config, "temperature", None),
        "device": settings.device,
        "wardround": version("wardround"),
        "torch": torch.__version__,
    }
