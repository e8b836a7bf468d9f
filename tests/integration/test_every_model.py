"""One federated, private round of every network, in 2-D and 3-D: what may be named can be run."""

import csv
import hashlib
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console
from safetensors.torch import load_file, save_file

from common.config import load_study, travelling
from common.files import read_json
from common.models.catalogue import CARDS
from common.models.registry import MODELS, build_model, model_config_type
from common.models.start import FOLDER
from common.models.trained import frozen_names
from server.progress import Progress
from server.run import initial_network
from simulation.run import composed, simulate
from tests.common.models.tiny import SMALLEST, size_for

PATIENTS = 6


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a data set of pictures with a label and a mask each, from two sites."""
    folder = tmp_path_factory.mktemp("pictures")
    draws = np.random.default_rng(0)
    rows = []
    for site in ("north", "south"):
        for patient in range(PATIENTS):
            name = f"{site}{patient}"
            image = draws.integers(0, 255, (32, 32), dtype=np.uint8)
            Image.fromarray(image).save(folder / f"{name}.png")
            mask = np.zeros((32, 32), np.uint8)
            mask[8:20, 8:20] = 1
            Image.fromarray(mask).save(folder / f"{name}_mask.png")
            label = ("normal", "pneumonia")[patient % 2]
            rows.append([f"{name}.png", site, label, f"{name}_mask.png"])
    with (folder / "manifest.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["path", "site", "label", "mask"], *rows])
    return folder


@pytest.fixture(scope="module")
def volumes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a data set of volumes with a label and a mask each, from two sites."""
    folder = tmp_path_factory.mktemp("volumes")
    draws = np.random.default_rng(0)
    mask = np.zeros((16, 16, 16), np.uint8)
    mask[4:10, 4:10, 4:10] = 1
    nib.Nifti1Image(mask, np.eye(4)).to_filename(folder / "mask.nii")
    rows = [["path", "site", "label", "mask"]]
    for site in ("north", "south"):
        for patient in range(PATIENTS):
            voxels = draws.normal(size=(16, 16, 16)).astype(np.float32) + mask
            nib.Nifti1Image(voxels, np.eye(4)).to_filename(folder / f"{site}{patient}.nii")
            label = ("normal", "pneumonia")[patient % 2]
            rows.append([f"{site}{patient}.nii", site, label, "mask.nii"])
    with (folder / "manifest.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return folder


def run(folder: Path, pictures: Path, task: str, *overrides: str) -> dict[str, Any]:
    mask = "mask" if task == "segmentation" else "null"
    settings = [
        f"task={task}",
        "data=pictures",
        "simulation=real",
        "simulation.engine=inprocess",
        f"data.root={pictures}",
        "+simulation.partition.by=column",
        "+simulation.partition.columns=[site]",
        f"+simulation.partition.mask_column={mask}",
        "+simulation.partition.min_patients_per_site=1",
        "rounds=1",
        "data.held_out=0.5",
        "privacy.mechanism=dp_sgd",
        "privacy.noise_multiplier=1.0",
        "training.batch_size=3",
        *overrides,
    ]
    return simulate(composed(folder, settings), Progress(Console(quiet=True)))


@pytest.mark.parametrize("name", MODELS)
def test_a_private_federated_round_of_every_network(
    name: str, pictures: Path, tmp_path: Path
) -> None:
    widths = [f"model.{key}={value}" for key, value in SMALLEST.get(name, {}).items()]
    size = f"data.size=[{size_for(name)},{size_for(name)}]"
    task = CARDS[name].tasks[0]
    result = run(tmp_path, pictures, task, f"model={name}", "model.norm_groups=2", size, *widths)
    assert result["status"] == "completed", result["reason"]
    assert set(result["privacy"]) == {"north", "south"}
    before, after = (result[when]["mean"][result["headline"]] for when in ("initial", "final"))
    assert before is not None
    assert after is not None


@pytest.mark.parametrize("name", [name for name, card in CARDS.items() if 3 in card.dims])
def test_a_private_federated_round_of_every_network_on_volumes(
    name: str, volumes: Path, tmp_path: Path
) -> None:
    widths = [f"model.{key}={value}" for key, value in SMALLEST.get(name, {}).items()]
    size = size_for(name)
    more = [f"data.size=[{size},{size},{size}]", "model.norm_groups=2", "training.local_steps=1"]
    if name == "deepmedic":
        more.append("data.segment=[13,13,13]")
    task = CARDS[name].tasks[0]
    result = run(tmp_path, volumes, task, f"model={name}", "data=volumes", *more, *widths)
    assert result["status"] == "completed", result["reason"]
    assert set(result["privacy"]) == {"north", "south"}
    before, after = (result[when]["mean"][result["headline"]] for when in ("initial", "final"))
    assert before is not None
    assert after is not None


FINDINGS = [f"finding_{number}" for number in range(14)]


@pytest.fixture(scope="module")
def radiographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a data set of bright squares: the larger one is, the more of 14 labels it has."""
    folder = tmp_path_factory.mktemp("radiographs")
    draws = np.random.default_rng(0)
    rows = []
    for site in ("north", "south"):
        for patient in range(24):
            image = draws.integers(0, 60, (32, 32), dtype=np.uint8)
            side = int(draws.integers(2, 31))
            image[:side, :side] += 150
            Image.fromarray(image).save(folder / f"{site}{patient}.png")
            named = "|".join(FINDINGS[: side // 2 - 1]) or "No Finding"
            rows.append([f"{site}{patient}.png", site, named])
    with (folder / "manifest.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["path", "site", "label"], *rows])
    return folder


CHEXNET = (
    "model=chexnet",
    "model.init_features=8",
    "model.growth_rate=4",
    "model.block_config=[2,2]",
    "model.norm_groups=4",
)
SEVERAL = (
    "data.size=[32,32]",
    f"task.classes=[{','.join(FINDINGS)}]",
    "task.out_channels=14",
    "task.no_label=No Finding",
)


def test_chexnet_finds_any_of_fourteen_labels(radiographs: Path, tmp_path: Path) -> None:
    longer = ("rounds=6", "training.local_steps=10", "training.lr=0.01", "privacy.mechanism=none")
    unnoised = ("privacy.noise_multiplier=null", "data.held_out=0.25", "training.batch_size=9")
    result = run(tmp_path, radiographs, "multilabel", *CHEXNET, *SEVERAL, *longer, *unnoised)
    assert result["status"] == "completed", result["reason"]
    before, after = (result[when]["mean"]["auroc"] for when in ("initial", "final"))
    assert after > max(0.7, before + 0.1)
    assert {f"auroc_{name}" for name in FINDINGS} < set(result["metrics"])


def test_a_private_round_of_fourteen_labels(radiographs: Path, tmp_path: Path) -> None:
    result = run(tmp_path, radiographs, "multilabel", *CHEXNET, *SEVERAL)
    assert result["status"] == "completed", result["reason"]
    assert set(result["privacy"]) == {"north", "south"}
    assert result["final"]["mean"]["auroc"] is not None


def test_a_study_of_several_labels_tells_all_that_other_studies_tell(
    radiographs: Path, tmp_path: Path
) -> None:
    few = ("model=cnn", "model.channels=[8]", "training.local_steps=2", "data.held_out=0.2")
    asked = (*few, *SEVERAL, "evaluation=shift", "training.oversample={finding_13: 2}")
    asked = (*asked, "task.threshold_share=0.2")
    result = run(tmp_path, radiographs, "multilabel", *asked)
    assert result["status"] == "completed", result["reason"]
    assert set(result["shift"]["benefit"]) == {"north", "south"}
    assert set(result["shift"]["distance"]["label_shift"]["north"]) == {"south"}
    told = {
        name for name, of in result["final"]["sites"]["north"].items() if of["value"] is not None
    }
    assert {"sensitivity", "sensitivity_finding_0", "specificity_finding_0"} <= told


@pytest.mark.parametrize(
    "settings", [["model.trained=[head]"], ["model.lora_rank=1"], ["training.lr_factors={head: 9}"]]
)
def test_only_what_is_trained_travels_and_the_model_is_whole_all_the_same(
    settings: list[str], pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = tmp_path / "weights"
    weights.mkdir()
    monkeypatch.setenv(FOLDER, str(weights))
    begun = build_model(model_config_type("cnn")(name="cnn", channels=[8, 16]), seed=7)
    save_file(begun.state_dict(), weights / "public.safetensors")
    digest = hashlib.sha256((weights / "public.safetensors").read_bytes()).hexdigest()
    start = f"model.start={{file: public.safetensors, sha256: {digest}}}"
    chosen = ["model=cnn", "model.channels=[8,16]", "data.size=[16,16]", start, *settings]
    result = run(tmp_path / "run", pictures, "classification", *chosen)
    assert result["status"] == "completed", result["reason"]
    network = initial_network(load_study(chosen_of(tmp_path / "run")))
    frozen = frozen_names(network)
    state, found = network.state_dict(), load_file(tmp_path / "run" / "model.safetensors")
    assert found.keys() == state.keys()
    for name, tensor in state.items():
        assert torch.equal(found[name], tensor) == (name in frozen), name
    travels = sum(t.nbytes for name, t in state.items() if name not in frozen)
    for part in result["rounds"][0]["sites"].values():
        assert part["bytes_sent"] == part["bytes_received"] == travels


def chosen_of(folder: Path) -> list[str]:
    return travelling(read_json(folder / "run.json")["overrides"])


def test_a_site_without_the_file_of_weights_says_so(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(FOLDER, str(tmp_path))
    start = f"model.start={{file: public.safetensors, sha256: {'0' * 64}}}"
    with pytest.raises(ValueError, match=r"public\.safetensors is not in"):
        run(tmp_path / "run", pictures, "classification", "model=cnn", start)
    assert not (tmp_path / "run").exists()
