"""A bundle is run by MONAI alone, and answers as the study's own way does."""

import json
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from monai.bundle import ConfigParser
from PIL import ExifTags, Image

from client.prediction.answers import answers_to
from client.prediction.passes import Passes
from client.readers import read_image
from common.export.bundle import not_prepared, write_bundle
from common.finished import Finished, load_finished
from common.transforms import prepare
from tests.builders import PICTURES, SLICES, pictures_site, study_from, volumes_site
from tests.finished import finished_run

BLOCKED = """
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("common", "client", "server", "simulation", "configs"):
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Absent())
runs = sys.argv[1:]
while runs:
    sys.argv, runs = runs[:5], runs[5:]
    exec(open(sys.argv[0]).read())
"""
VOLUMES = (
    "model=unet",
    "data=volumes",
    "task=segmentation",
    "model.channels=[4,8]",
    "model.strides=[2]",
    "model.num_res_units=0",
    "data.size=[16,16,8]",
    "rounds=2",
)


RESIZED = ("data.fit=resize", "data.normalise=minmax")
CASES = {
    # The first one run: no other has loaded what it needs.
    "pictures-turned": PICTURES,
    "slices": SLICES,
    "slices-sigmoid": (*SLICES, "model.out_channels=1"),
    "volumes": VOLUMES,
    "pictures": PICTURES,
    "pictures-small": (*PICTURES, "data.size=[11,24]"),
    "pictures-warm": (*PICTURES, "task.temperature=2.5"),
    "slices-small": (*SLICES, *RESIZED, "data.size=[8,24]"),
    "volumes-small": (*VOLUMES, *RESIZED, "data.size=[8,24,4]"),
}


@dataclass(frozen=True)
class Case:
    """A bundle, an image, and what the bundle says of it."""

    finished: Finished
    bundle: Path
    image: Path
    told: Path


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Case]:
    """Run the lines of each bundle's own README in a process that cannot import wardround."""
    root = tmp_path_factory.mktemp("bundles")
    volume = volumes_site(root / "volumes-site", train=1, test=0).parent / "0.nii"
    picture = pictures_site(root / "pictures-site", train=1, test=0).parent / "0-0.png"
    # In colour, as many radiographs are, and lying on its side but for its EXIF tag.
    turned, exif = root / "pictures-site" / "turned.jpeg", Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    pixels = np.random.default_rng(0).integers(0, 255, (20, 30, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(turned, exif=exif)
    found, words = {}, []
    for name, overrides in CASES.items():
        folder = root / name
        finished = load_finished(finished_run(folder / "run", *overrides))
        write_bundle(finished, {"wardround.study": "tiny"}, folder / "bundle")
        image = picture if name.startswith("pictures") else volume
        image = turned if name == "pictures-turned" else image
        case = Case(finished, folder / "bundle", image, folder / "answer.npy")
        readme = (case.bundle / "docs" / "README.md").read_text()
        lines = re.search(r"```python\n(.*?)```", readme, re.DOTALL)
        assert lines is not None
        (folder / "run.py").write_text(lines[1])
        kind = "volume" if image == volume else "picture"
        words += [str(folder / "run.py"), str(case.bundle), str(image), kind, str(case.told)]
        found[name] = case
    subprocess.run([sys.executable, "-c", BLOCKED, *words], check=True, timeout=180, cwd=root)
    return found


def passes(finished: Finished) -> Passes:
    return Passes(
        network=finished.network,
        study=finished.study,
        task=finished.task,
        device=next(finished.network.parameters()).device,
    )


@pytest.mark.parametrize("name", ["slices", "slices-sigmoid", "volumes"])
def test_a_volume_gets_the_mask_that_wardround_gives(cases: dict[str, Case], name: str) -> None:
    case = cases[name]
    (answer,) = answers_to([read_image(case.image, 1)], passes(case.finished))
    told = np.load(case.told)
    assert answer.classes_S is not None
    # Where the study pads, MONAI's answer has the padding.
    slices = answer.classes_S.shape[2]
    before = (told.shape[3] - slices) // 2
    np.testing.assert_array_equal(told[0, :, :, before : before + slices], answer.classes_S)


@pytest.mark.filterwarnings("ignore:NvImgCodec")
@pytest.mark.parametrize("name", CASES)
def test_an_image_is_prepared_as_in_the_study(cases: dict[str, Case], name: str) -> None:
    case = cases[name]
    image = read_image(case.image, 1)
    ours, _, _ = prepare(case.finished.study.data)(image.array_CS, None, image.spacing_mm)
    parser = ConfigParser()
    parser.read_config(case.bundle / "configs" / "inference.json")
    parser["volumes"] = not name.startswith("pictures")
    theirs = parser.get_parsed_content("preprocessing")({"image": str(case.image)})["image"]
    if ours.shape == theirs.shape:
        np.testing.assert_allclose(np.asarray(theirs), ours.numpy(), atol=1e-4)
    else:
        assert name == "volumes"


@pytest.mark.parametrize("name", [name for name in CASES if name.startswith("pictures")])
def test_a_picture_gets_the_scores_that_wardround_gives(cases: dict[str, Case], name: str) -> None:
    case = cases[name]
    (answer,) = answers_to([read_image(case.image, 1)], passes(case.finished))
    np.testing.assert_allclose(np.load(case.told), list(answer.scores.values()), atol=1e-4)


def test_the_metadata_names_channels_versions_and_the_study(cases: dict[str, Case]) -> None:
    bundle = cases["slices"].bundle
    told = json.loads((bundle / "configs" / "metadata.json").read_text())
    for name in ("version", "monai_version", "pytorch_version", "numpy_version"):
        assert re.fullmatch(r"\d+(\.\d+)*", told[name])
    pred = told["network_data_format"]["outputs"]["pred"]
    assert pred["channel_def"] == {"0": "background", "1": "lesion"}
    assert told["wardround"] == {"wardround.study": "tiny"}


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ((), 1),
        (("data.channels=3",), 2),
        (("task.mirrored=true",), 2),
        (("data.spacing_mm=[2,2]",), 2),
        (("data.normalise=rank", "data.remove_bias=true"), 3),
    ],
)
def test_what_monai_prepares_otherwise_is_told(more: tuple[str, ...], told: int) -> None:
    assert len(not_prepared(study_from(*SLICES, *more))) == told
