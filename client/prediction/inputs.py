"""Which files are predicted, and what their answers are called."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from client.readers import BadFileError
from client.readers.registry import READERS, ending, is_dicom, stem
from common.schema import SettingsError

DICOM = ".dcm"
TABLE, ABOUT = "predictions.csv", "about.json"
"""Of a folder of answers."""


@dataclass(frozen=True, kw_only=True)
class Input:
    """One image."""

    path: Path
    """Of a file, or of a folder that is one DICOM series."""
    name: str
    """As it is told: the path below the input folder."""
    stem: str
    """What the names of its answers begin with, folders and all; no other image has the same."""


@dataclass(frozen=True, kw_only=True)
class Found:
    """What lies at a path."""

    inputs: Sequence[Input]
    others: int
    """Files of a kind that no reader knows."""


def inputs_at(path: Path, output: Path) -> Found:
    """Return the image at a path, or all images of a folder and its folders, by name.

    Earlier answers are no input, and nothing whose name begins with a dot is.

    Raises:
        SettingsError: there is nothing there, or the output folder holds something.
    """
    _check_output(path, output)
    if path.is_file():
        return Found(inputs=_named(path.parent, [path]), others=0)
    if not path.is_dir():
        raise SettingsError(f"--input {path} does not exist; give an image or a folder of images")
    files = [file for file in sorted(path.rglob("*")) if file.is_file() and _is_input(file, path)]
    answers = {file.parent for file in files if file.name == ABOUT}
    answers = {folder for folder in answers if (folder / TABLE).is_file()}
    files = [file for file in files if answers.isdisjoint(file.parents)]
    plain = [file for file in files if ending(file) in READERS and ending(file) != DICOM]
    dicom = [
        file
        for file in files
        if file not in set(plain) and (ending(file) == DICOM or is_dicom(file))
    ]
    if not plain and not dicom:
        raise SettingsError(
            f"--input {path} holds no image among {len(files)} files; images are DICOM, or end in "
            f"{', '.join(READERS)}"
        )
    images = sorted([*plain, *_series(dicom)])
    return Found(inputs=_named(path, images), others=len(files) - len(plain) - len(dicom))


def _check_output(path: Path, output: Path) -> None:
    """Raise SettingsError where answers would lie among images, or take the place of files."""
    own = output.resolve()
    folder = (path if path.is_dir() else path.parent).resolve()
    if own == folder or own in folder.parents:
        raise SettingsError(
            f"--output {output} is the input folder, or one that it lies in; give another, so that "
            "no answer takes the place of a file or is taken for an image"
        )
    if own.exists() and (not own.is_dir() or any(own.iterdir())):
        raise SettingsError(
            f"--output {output} holds something, which answers could take the place of; give an "
            "empty folder, or a new one"
        )


def _series(files: Sequence[Path]) -> list[Path]:
    """Return what is one image each: the folder of a series, or a file that is alone in its own.

    A folder of several series of several files is given as it is: its reader says what to do.
    """
    folders: defaultdict[Path, list[Path]] = defaultdict(list)
    for file in files:
        folders[file.parent].append(file)
    return [one for folder, own in folders.items() for one in _images_in(folder, own)]


def _images_in(folder: Path, files: Sequence[Path]) -> Sequence[Path]:
    if len(files) == 1 or not _has_dicom():
        return files
    from client.readers.dicom_files import series_in

    series: Counter[str] = Counter()
    readable = 0
    for file in files:
        # What cannot be read is told when its image is.
        with suppress(BadFileError):
            series.update(series_in([file]).keys())
            readable += 1
    return files if len(series) == readable else [folder]


def _has_dicom() -> bool:
    return find_spec("pydicom") is not None


def _is_input(file: Path, root: Path) -> bool:
    return not any(part.startswith(".") for part in file.relative_to(root).parts)


def _named(root: Path, files: Sequence[Path]) -> list[Input]:
    def below(file: Path) -> Path:
        return file.relative_to(root)

    def bare(file: Path) -> Path:
        if file == root:
            return Path(root.resolve().name)
        return below(file) if file.is_dir() else below(file).with_name(stem(file))

    stems = {file: bare(file) for file in files}
    # Where an image is there as two kinds of file, each keeps its ending: which may be how a third
    # is called without its own.
    while len(set(stems.values())) < len(files):
        times = Counter(stems.values())
        stems |= {file: below(file) for file in files if times[stems[file]] > 1}
    return [Input(path=file, name=str(below(file)), stem=str(stems[file])) for file in files]
