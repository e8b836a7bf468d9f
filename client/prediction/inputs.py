"""Which files are predicted, and what their answers are called."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from client.readers.registry import READERS, ending, stem
from common.schema import SettingsError


@dataclass(frozen=True, kw_only=True)
class Input:
    """One image."""

    path: Path
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

    What lies in the output folder is no input, and nothing whose name begins with a dot is.

    Raises:
        SettingsError: there is nothing there.
    """
    if path.is_file():
        return Found(inputs=_named(path.parent, [path]), others=0)
    if not path.is_dir():
        raise SettingsError(f"--input {path} does not exist; give an image or a folder of images")
    if output.resolve() == path.resolve():
        raise SettingsError(
            f"--output {output} is the input folder; give another, so that masks are not taken for "
            "images the next time"
        )
    files = [file for file in sorted(path.rglob("*")) if file.is_file() and _is_input(file, path)]
    files = [file for file in files if output.resolve() not in file.resolve().parents]
    images = [file for file in files if ending(file) in READERS]
    if not images:
        raise SettingsError(
            f"--input {path} holds no image among {len(files)} files; images end in "
            f"{', '.join(READERS)}"
        )
    return Found(inputs=_named(path, images), others=len(files) - len(images))


def _is_input(file: Path, root: Path) -> bool:
    return not any(part.startswith(".") for part in file.relative_to(root).parts)


def _named(root: Path, files: Sequence[Path]) -> list[Input]:
    def below(file: Path) -> Path:
        return file.relative_to(root)

    stems = Counter(below(file).with_name(stem(file)) for file in files)
    return [
        Input(
            path=file,
            name=str(below(file)),
            # Where an image is there as two kinds of file, each keeps its ending.
            stem=str(
                below(file)
                if stems[below(file).with_name(stem(file))] > 1
                else below(file).with_name(stem(file))
            ),
        )
        for file in files
    ]
