"""What predictions cost: seconds for many pictures, and the most memory for one CT.

    python -m simulation.benchmark.prediction [--json] [--quick]

The default networks with the weights that they begin with, one CPU thread, a process for each row
as a user would begin it. `pictures`: 1,000 PNG files of 128 x 128. `CT`: one NIfTI file of
512 x 512 x 100, by a network of slices of 128 x 128, and by one of volumes of 96 x 96 x 96.
`seconds` are the process's own processor time for the images alone, so what a
neighbour takes is not counted; `peak_mb` is the process' largest resident memory, of which the
libraries have about `libraries_mb`.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import nibabel as nib
import numpy as np
from PIL import Image

from common.config import canonical, load_study, study_digest
from common.files import write_json
from common.finished import MODEL, RESULT
from common.tensor_files import write_tensors
from server.run import initial_network, shared_state
from simulation.benchmark.table import Row, begin_with_environment, run_benchmark

PICTURES, SIDE, QUICK_PICTURES = 1000, 128, 50
CT_SHAPE, QUICK_CT_SHAPE = (512, 512, 100), (128, 128, 20)
CT_AFFINE = np.diag([0.7, 0.7, 2.5, 1.0])
STUDIES = {
    "classes of pictures": ("model=cnn", "task=classification", "data.size=[128,128]"),
    "masks of pictures": ("model=unet", "task=segmentation", "data.size=[128,128]"),
    "a CT, slice by slice": ("model=unet", "task=segmentation", "data.size=[128,128]"),
    "a CT, in 3-D": (
        "model=unet",
        "task=segmentation",
        "data=volumes",
        "data.size=[96,96,96]",
    ),
}
_CHILD = """
import json, resource, sys, time
from pathlib import Path
import torch
from client.prediction.inputs import inputs_at
from client.prediction.run import Settings, predict
from common.finished import load_finished

def peak_mb():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

torch.set_num_threads(1)
run, images, output = map(Path, sys.argv[1:])
finished, inputs = load_finished(run), inputs_at(images, output).inputs
libraries, began = peak_mb(), time.process_time()
rows = predict(finished, inputs, Settings(output=output))
print(json.dumps([len(rows), time.process_time() - began, libraries, peak_mb()]))
"""


def main() -> None:
    """Measure and print the rows."""
    begin_with_environment()
    run_benchmark("prediction", "predictions, one thread", measure, sys.argv[1:])


def measure(quick: bool) -> list[Row]:
    """Return a row for each kind of study."""
    with tempfile.TemporaryDirectory() as folder:
        pictures, scan = Path(folder, "pictures"), Path(folder, "ct.nii.gz")
        _write_pictures(pictures, QUICK_PICTURES if quick else PICTURES)
        _write_ct(scan, QUICK_CT_SHAPE if quick else CT_SHAPE)
        return [
            _row(name, scan if "CT" in name else pictures, Path(folder, str(place)))
            for place, name in enumerate(STUDIES)
        ]


def _row(name: str, images: Path, folder: Path) -> Row:
    _write_run(folder / "run", "data=pictures", *STUDIES[name])
    command = [sys.executable, "-c", _CHILD, str(folder / "run"), str(images), str(folder / "out")]
    told = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    count, seconds, libraries, peak = json.loads(told.splitlines()[-1])
    return {
        "name": name,
        "images": count,
        "seconds": seconds,
        "libraries_mb": round(libraries),
        "peak_mb": round(peak),
    }


def _write_run(folder: Path, *overrides: str) -> None:
    last = {override.partition("=")[0]: override for override in overrides}
    study = load_study(list(last.values()))
    digest = study_digest(study)
    folder.mkdir(parents=True)
    about = {"digest": digest, "rounds": study.rounds}
    write_tensors(folder / MODEL, shared_state(study, initial_network(study)), about)
    write_json(folder / RESULT, {"study": json.loads(canonical(study)), "study_digest": digest})


def _write_pictures(folder: Path, count: int) -> None:
    folder.mkdir()
    draws = np.random.default_rng(0)
    for number in range(count):
        pixels = draws.integers(0, 256, (SIDE, SIDE), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number:04d}.png")


def _write_ct(path: Path, shape: tuple[int, ...]) -> None:
    values = np.random.default_rng(0).integers(-1000, 1000, shape, dtype=np.int16)
    nib.save(nib.Nifti1Image(values, CT_AFFINE), path)


if __name__ == "__main__":
    main()
