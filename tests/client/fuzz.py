"""Damaged files: whatever was done to a file, it is read right or refused with a named error.

python -m tests.client.fuzz --examples 10000      all kinds, that many damaged files of each

Each kind runs in a process of its own, so that its memory can be told. Prints a line a kind. The
suite runs fewer, in one process.
"""

import argparse
import functools
import gzip
import json
import logging
import resource
import signal
import subprocess
import sys
import tempfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from time import process_time
from types import FrameType

import nibabel as nib
import numpy as np
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from PIL import Image

from client.deidentify.pseudonyms import Pseudonyms
from client.deidentify.store import Store
from client.listing.folder import found_in
from client.manifest import Row, read_manifest
from client.mapping import load_names
from client.preflight.facts import facts_of
from client.readers import BadFileError, Picture, read_image, read_mask
from client.readers.dicom_files import read_header
from tests.dicoms import (
    square_mm,
    stored_volume,
    write_contours,
    write_enhanced,
    write_segmentation,
    write_series,
)

KINDS = ("nifti", "dicom", "picture", "manifest")
LONGEST_S = 20.0
"""Of a processor, for one file; a reader that takes longer hangs."""
_PATIENCE_S = 120.0
"""By the clock, which runs on while others use the machine."""
MOST_BYTES = 2 * 2**30
_OF_HEADER = 400
_NUMBERS = (b"\xff\xff\xff\xff", b"\xff\xff\xff\x7f", b"\x00\x00\x00\x00", b"\xff\x7f", b"\x00\x80")
_PNG_HEAD = slice(12, 29)
"""Of a PNG: the type and the body of its first chunk, which its checksum covers."""


class HangError(BaseException):
    """A file took too long. Not an Exception: no reader may make another error of it."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of the damaged files of one kind."""

    kind: str
    read: int
    refused: int
    peak_bytes: int
    slowest_s: float


def outcome_of(kind: str, examples: int) -> Outcome:
    """Run one kind in this process.

    Raises:
        BaseException: what a reader raised for a damaged file, if it is no named error.
    """
    logging.disable(logging.CRITICAL)
    counts: Counter[bool] = Counter()
    slowest = 0.0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        seeds = SEEDS[kind](folder / "seeds")
        (folder / "damaged").mkdir()

        @settings(
            max_examples=examples,
            database=None,
            deadline=None,
            derandomize=True,
            suppress_health_check=list(HealthCheck),
            phases=[Phase.generate, Phase.shrink],
        )
        @given(st.data())
        def attempt(data: st.DataObject) -> None:
            nonlocal slowest
            path, content = data.draw(st.sampled_from(seeds))
            damaged = data.draw(damages(path.suffix, content))
            target = folder / "damaged" / f"a{''.join(path.suffixes)}"
            target.write_bytes(damaged)
            start = process_time()
            with _within(_PATIENCE_S):
                counts[WAYS[kind](target, path)] += 1
            slowest = max(slowest, process_time() - start)

        attempt()
    return Outcome(
        kind=kind,
        read=counts[True],
        refused=counts[False],
        peak_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        slowest_s=slowest,
    )


@st.composite
def damages(draw: st.DrawFn, suffix: str, content: bytes) -> bytes:
    """Return a file with some of its bytes changed, cut off, or there twice."""
    packed = suffix == ".gz" and draw(st.booleans())
    found = bytearray(gzip.decompress(content) if packed else content)
    for _ in range(draw(st.integers(1, 4))):
        near = min(_OF_HEADER, len(found)) if draw(st.booleans()) else len(found)
        at = draw(st.integers(0, max(near - 1, 0)))
        what = draw(st.sampled_from(["byte", "number", "cut", "twice", "drop"]))
        if what == "byte":
            found[at : at + 1] = bytes([draw(st.integers(0, 255))])
        elif what == "number":
            number = draw(st.sampled_from(_NUMBERS))
            found[at : at + len(number)] = number
        elif what == "cut":
            del found[at + 1 :]
        elif what == "twice":
            found[at:at] = found[at : at + draw(st.integers(1, 64))]
        else:
            del found[at : at + draw(st.integers(1, 16))]
    if suffix == ".png" and len(found) > _PNG_HEAD.stop + 4 and draw(st.booleans()):
        # A wrong checksum is told at once; behind a right one more is to be found.
        found[29:33] = zlib.crc32(found[_PNG_HEAD]).to_bytes(4, "big")
    return gzip.compress(bytes(found), 1) if packed else bytes(found)


def _image_or_mask(path: Path, _: Path) -> bool:
    """Return whether the file could be read, as an image or as a mask."""
    read = 0
    for way in (lambda: read_image(path, 1), lambda: read_image(path, 3), lambda: read_mask(path)):
        try:
            picture = way()
        except BadFileError:
            continue
        read += 1
        assert picture.array_CS.ndim == 1 + len(picture.spacing_mm)
        assert picture.array_CS.size > 0
        assert all(mm > 0 for mm in picture.spacing_mm)
    facts_of(Row(image=path, patient="p"))
    return read > 0


def _dicom(path: Path, seed: Path) -> bool:
    read = _image_or_mask(path, seed)
    try:
        read_mask(path, _whole_image(seed.parent / "s"))
    except BadFileError:
        pass
    else:
        read = True
    out = path.parents[1] / "out"
    store = Store(folder=out / "cohort", log=out / "log", pseudonyms=Pseudonyms(b"k" * 32))
    with suppress(BadFileError):
        store.add(read_header(path, pixels=True), path)
    try:
        found_in(path.parent)
    except ValueError as error:
        # Labels alone, and what is no DICOM any more.
        if "holds no images" not in str(error):
            raise
    return read


@functools.cache
def _whole_image(series: Path) -> Picture:
    return read_image(series, 1)


def _manifest(path: Path, _: Path) -> bool:
    try:
        if path.suffix == ".yaml":
            load_names(path)
        elif path.suffix == ".json":
            found_in(path.rename(path.with_name("dataset.json")))
        else:
            read_manifest(path)
    # What a command tells in one line; a traceback is anything else.
    except ValueError:
        return False
    return True


WAYS: dict[str, Callable[[Path, Path], bool]] = {
    "nifti": _image_or_mask,
    "dicom": _dicom,
    "picture": _image_or_mask,
    "manifest": _manifest,
}

Seeds = list[tuple[Path, bytes]]


def _nifti_seeds(folder: Path) -> Seeds:
    folder.mkdir()
    ramp = np.arange(60, dtype=np.int16).reshape(5, 4, 3)
    for name in ("a.nii", "a.nii.gz"):
        nib.save(nib.Nifti1Image(ramp, np.diag([1, 2, 3, 1])), folder / name)
    nib.save(nib.Nifti2Image(ramp.astype(np.float32), np.eye(4)), folder / "b.nii")
    return _contents(folder)


def _dicom_seeds(folder: Path) -> Seeds:
    folder.mkdir()
    series = write_series(folder / "s")
    (folder / "a.dcm").write_bytes(series[0].read_bytes())
    for name, syntax in (("rle", "1.2.840.10008.1.2.5"), ("j2k", "1.2.840.10008.1.2.4.90")):
        one = read_header(
            write_series(folder / name, np.tile(stored_volume(1), (1, 16, 16)))[0], True
        )
        one.compress(syntax, generate_instance_uid=False)
        one.save_as(folder / f"{name}.dcm")
    write_enhanced(folder / "frames.dcm", stored_volume(3), (1, 2, 3))
    mask = np.zeros(stored_volume().shape, np.uint8)
    mask[1, :2, :3] = 1
    write_segmentation(folder / "seg.dcm", series, {1: mask})
    write_contours(folder / "rt.dcm", {1: [square_mm((0, 0), (3, 3), 1)]})
    return [(file, file.read_bytes()) for file in sorted(folder.glob("*.dcm"))]


def _picture_seeds(folder: Path) -> Seeds:
    folder.mkdir()
    pixels = np.random.default_rng(0).integers(0, 255, (12, 16, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(folder / "colour.png")
    Image.fromarray(pixels[..., 0]).save(folder / "grey.png")
    Image.fromarray(pixels[..., 0].astype(np.uint16) * 99).save(folder / "deep.png")
    Image.fromarray(pixels).convert("P").save(folder / "palette.png")
    Image.fromarray(pixels).save(folder / "colour.jpg")
    return _contents(folder)


def _manifest_seeds(folder: Path) -> Seeds:
    folder.mkdir()
    lines = ["image,label,patient,split,age", "a.png,x,p1,train,40", '"b,b.png",y,p2,test,']
    (folder / "m.csv").write_text("\n".join(lines))
    (folder / "m.tsv").write_text("\n".join(lines).replace(",", "\t"))
    (folder / "map.yaml").write_text("sequences: {'t1*': t1}\nlabels: {GTV: 1, 255: 2}\n")
    entry = [{"image": "a.nii", "label": "b.nii"}, {"image": "c.nii", "label": 1}]
    (folder / "d.json").write_text(json.dumps({"labels": {"1": "a"}, "training": entry}))
    return _contents(folder)


SEEDS: dict[str, Callable[[Path], Seeds]] = {
    "nifti": _nifti_seeds,
    "dicom": _dicom_seeds,
    "picture": _picture_seeds,
    "manifest": _manifest_seeds,
}


def _contents(folder: Path) -> Seeds:
    return [(file, file.read_bytes()) for file in sorted(folder.iterdir())]


@contextmanager
def _within(seconds: float) -> Iterator[None]:
    def ended(_: int, __: FrameType | None) -> None:
        raise HangError(f"a file was not done after {seconds} s")

    signal.signal(signal.SIGALRM, ended)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def run_apart(kinds: Sequence[str], examples: int) -> list[Outcome]:
    """Run some kinds in one process of their own.

    Raises:
        subprocess.CalledProcessError: a reader raised what is no named error; stderr tells it.
    """
    words = ["-m", "tests.client.fuzz", "--examples", str(examples), "--only", *kinds]
    done = subprocess.run(
        [sys.executable, *words], stdout=subprocess.PIPE, cwd=Path(__file__).parents[2], check=True
    )
    return [Outcome(**one) for one in json.loads(done.stdout)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--examples", type=int, default=10_000)
    parser.add_argument("--only", choices=KINDS, nargs="+", help="in this process, told as JSON")
    asked = parser.parse_args()
    if asked.only:
        print(json.dumps([asdict(outcome_of(kind, asked.examples)) for kind in asked.only]))
        return
    for kind in KINDS:
        (found,) = run_apart([kind], asked.examples)
        print(
            f"{kind:9} {found.read + found.refused} files: {found.read} read, {found.refused} "
            f"refused, none otherwise; peak {found.peak_bytes / 1e6:.0f} MB, slowest "
            f"{found.slowest_s:.1f} s",
            flush=True,
        )
        if found.peak_bytes > MOST_BYTES:
            sys.exit(f"{kind}: more than {MOST_BYTES / 1e9:.1f} GB")


if __name__ == "__main__":
    main()
