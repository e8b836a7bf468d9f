"""Images are read and looked at a few at a time, however many there are and however large."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from client.prediction.inputs import inputs_at
from client.prediction.passes import Passes
from client.prediction.run import MOST_VOXELS, batches
from client.readers import BadFileError, Picture
from common.finished import load_finished
from tests.builders import SLICES, pictures_site
from tests.finished import finished_run


def test_pictures_together_are_so_many_and_so_large_at_most(tmp_path: Path) -> None:
    folder = pictures_site(tmp_path / "site", train=40, test=0).parent
    pixels = np.indices((1500, 1500)).sum(0).astype(np.uint8)
    for name in ("x", "y", "z"):
        Image.fromarray(pixels).save(folder / f"{name}.png")
    (folder / "w.png").write_bytes(b"none")
    finished = load_finished(finished_run(tmp_path / "run", *SLICES))
    passes = Passes(
        network=finished.network,
        study=finished.study,
        task=finished.task,
        device=torch.device("cpu"),
    )
    inputs = inputs_at(folder, tmp_path / "out").inputs
    found = list(batches(inputs, passes))
    assert [one for some in found for one, _ in some] == list(inputs)
    assert [len(some) for some in found] == [32, 10, 1, 1]
    for some in found:
        voxels = [p.array_CS.size for _, p in some if isinstance(p, Picture)]
        assert sum(voxels) <= MOST_VOXELS
    assert isinstance(found[1][8][1], BadFileError)
