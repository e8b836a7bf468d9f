"""One federated, private round of every task beyond classes of voxels and images."""

import csv
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console
from safetensors.torch import load_file

from common.config import load_study
from common.models.layers import head_keys
from common.models.start import FOLDER
from common.schema import SettingsError
from server.progress import Progress
from server.run import initial_network
from simulation.run import composed, simulate

SITES = ("north", "south")
SHIFT = ("evaluation=shift", "evaluation.own_model=false")
PRIVATE = ("privacy.mechanism=dp_sgd", "privacy.noise_multiplier=1.0", "training.batch_size=3")


def listed(
    folder: Path, columns: dict[str, Any], patients: int = 6, sites: Sequence[str] = SITES
) -> Path:
    """Write pictures of the sites, and a manifest with these columns: (site, patient) -> cell."""
    draws = np.random.default_rng(0)
    lines = [",".join(["path", "site", *columns])]
    for site in sites:
        for patient in range(patients):
            pixels = draws.integers(0, 90, (16, 16), dtype=np.uint8)
            pixels[4:12, 4:12] += 20 * patient
            Image.fromarray(pixels).save(folder / f"{site}{patient}.png")
            cells = [str(cell(site, patient)) for cell in columns.values()]
            lines.append(",".join([f"{site}{patient}.png", site, *cells]))
    (folder / "manifest.csv").write_text("\n".join(lines) + "\n")
    return folder


def run(folder: Path, data: Path, *overrides: str, label: str = "null") -> dict[str, Any]:
    settings = [
        "data=pictures",
        "data.size=[16,16]",
        "data.augment=none",
        "simulation=real",
        "simulation.engine=inprocess",
        f"data.root={data}",
        "+simulation.partition.by=column",
        "+simulation.partition.columns=[site]",
        "+simulation.partition.mask_column=null",
        f"+simulation.partition.label_column={label}",
        "+simulation.partition.min_patients_per_site=1",
        "rounds=1",
        "data.held_out=0.5",
        *overrides,
    ]
    return simulate(composed(folder, settings), Progress(Console(quiet=True)))


SMALL_UNET = ("model=unet128", "model.channels=[4,6]", "model.norm_groups=2")


def test_a_private_round_of_restoration_is_measured_beside_the_usual_ways_back(
    tmp_path: Path,
) -> None:
    data = tmp_path / "data"
    data.mkdir()
    result = run(
        tmp_path / "run",
        listed(data, {}),
        "task=restoration",
        "task.forward={name: low_dose, photons: 30, acceleration: null, centre: null}",
        "data.normalise=minmax",
        "model.residual=true",
        *SMALL_UNET,
        *PRIVATE,
    )
    assert result["status"] == "completed", result["reason"]
    assert set(result["privacy"]) == set(SITES)
    for site in SITES:
        told = result["final"]["sites"][site]
        assert all(about["low"] <= about["value"] <= about["high"] for about in told.values())
        # It begins with the image as it came, which the network of one round has hardly left.
        assert abs(told["psnr_gain"]["value"]) < 20


SMALL_CNN = ("model=cnn", "model.channels=[4,6]", "model.norm_groups=2")


def followed(data: Path) -> Path:
    """Return pictures whose patients have the event the earlier the brighter they are."""
    data.mkdir()
    columns = {"time": lambda _, k: 5 - 0.7 * k, "event": lambda _, k: int(k > 0)}
    return listed(data, columns)


def test_a_private_round_of_survival_ranks_the_patients_of_each_site(tmp_path: Path) -> None:
    data = followed(tmp_path / "data")
    result = run(tmp_path / "run", data, "task=survival", *SMALL_CNN, *PRIVATE, *SHIFT)
    assert result["status"] == "completed", result["reason"]
    assert set(result["privacy"]) == set(SITES)
    for site in SITES:
        assert 0 <= result["final"]["sites"][site]["c_index"]["value"] <= 1


@pytest.mark.parametrize("privacy", [(), PRIVATE])
def test_a_site_without_labels_takes_part(privacy: tuple[str, ...], tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    labels = {"label": lambda site, k: "ab"[k % 2] if site == "north" else ""}
    result = run(
        tmp_path / "run",
        listed(data, labels),
        "task=classification",
        "task.classes=[a,b]",
        # Of two classes a model is always so sure of one.
        "task.unlabelled={weight: 1.0, least_confidence: 0.5}",
        *SMALL_CNN,
        *privacy,
        label="label",
    )
    assert result["status"] == "completed", result["reason"]
    assert set(result["rounds"][0]["sites"]) == set(SITES)
    assert result["sites"]["south"]["patients_train"] == 6
    assert result["sites"]["south"]["patients_held_out"] == 0
    assert set(result["final"]["sites"]) == {"north"}
    assert set(result["privacy"]) == (set(SITES) if privacy else set())


def test_a_site_that_lacks_a_sequence_takes_part(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    own = {"image_t1": lambda site, k: f"{site}{k}.png", "label": lambda _, k: "ab"[k % 2]}
    # The second sequence is the same picture: here a file is a file.
    more = {"image_t2": lambda site, k: f"{site}{k}.png" if site == "north" else ""}
    result = run(
        tmp_path / "run",
        listed(data, {**own, **more}),
        "task=classification",
        "task.classes=[a,b]",
        "data.sequences=[t1,t2]",
        "data.channels=2",
        "data.sequence_dropout=0.3",
        *SMALL_CNN,
        *PRIVATE,
        label="label",
    )
    assert result["status"] == "completed", result["reason"]
    assert set(result["privacy"]) == set(SITES)


@pytest.mark.parametrize("task", ["classification", "survival"])
def test_a_site_and_a_patient_without_covariates_take_part(task: str, tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    columns = {
        "label": lambda _, k: ("normal", "pneumonia")[k % 2],
        "time": lambda _, k: 5 - 0.7 * k,
        "event": lambda _, k: int(k > 0),
        # All of south, and one patient of north, are unknown.
        "age": lambda site, k: 40 + k if site == "north" and k else "",
        "sex": lambda site, k: "FM"[k % 2] if site == "north" else "",
    }
    result = run(
        tmp_path / "run",
        listed(data, columns),
        f"task={task}",
        "data.covariates={age: [18, 95], sex: [F, M]}",
        "data.augment=flip",
        *SMALL_CNN,
        *PRIVATE,
        *(SHIFT if task == "classification" else ()),
        label="label",
    )
    assert result["status"] == "completed", result["reason"]
    assert set(result["privacy"]) == set(SITES)


def test_people_of_a_real_table_take_part_with_the_covariates_that_it_has(
    shared_data: Path, tmp_path: Path
) -> None:
    # Sex, age and field strength of participants.tsv; one person's age is n/a. One person a site:
    # there is nothing to learn, but every cell has to be read.
    folder = shared_data / "spinalcord_gm"
    lines = ["path,site,label,age,field_strength"]
    with (folder / "participants.tsv").open(newline="") as file:
        for row in csv.DictReader(file, delimiter="\t"):
            images = sorted(folder.glob(f"{row['participant_id']}/*_T2starw.nii.gz"))
            if images and row["sex"] in ("M", "F"):
                age = "" if row["age"] == "n/a" else row["age"]
                field = f"{float(row['Field Strength [T]']):g} T"
                lines.append(f"{images[0]},{row['Site']},{row['sex']},{age},{field}")
    ages = [line.split(",")[3] for line in lines[1:]]
    assert "" in ages
    assert len(set(ages)) > 3
    data = tmp_path / "data"
    data.mkdir()
    (data / "manifest.csv").write_text("\n".join(lines) + "\n")
    result = run(
        tmp_path / "run",
        data,
        "data=slices",
        "data.size=[48,48]",
        "task=classification",
        "task.classes=[M,F]",
        "data.covariates={age: [18, 95], field_strength: [1.5 T, 3 T]}",
        "+simulation.partition.leave_out=UCL",
        *SMALL_CNN,
        "training.batch_size=3",
        label="label",
    )
    assert result["status"] == "completed", result["reason"]
    assert set(result["sites"]) == {"UCL", "NWU", "Philips", "Milan", "CEITEC"}


@pytest.mark.parametrize(
    ("covariates", "setting", "told"),
    [
        ("age: [18, 95]", "task=segmentation model=unet", "has an answer a voxel"),
        ("age: [18, 95]", "model.covariates=null", "is not data.covariates"),
        ("label: [normal, pneumonia]", "", "data.covariates has label, which"),
        ("image_t1: [a, b]", "data.sequences=[t1]", "data.covariates has image_t1, which"),
    ],
)
def test_covariates_that_cannot_be_used_are_refused(
    covariates: str, setting: str, told: str
) -> None:
    asked = f"data.covariates={{{covariates}}}"
    with pytest.raises(SettingsError, match=told):
        load_study(["model=cnn", "task=classification", asked, *setting.split()])


ROTATED = (
    "task.method=rotated",
    "task.out_channels=4",
    "task.hidden_share=null",
    "task.patch=null",
    "task.headline=balanced_accuracy",
)


def check_begins(folder: Path, second: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    """Check that another study begins with the weights of the run, all but the last layer's."""
    monkeypatch.setenv(FOLDER, str(folder / "weights"))
    (folder / "weights").mkdir()
    file = folder / "weights" / "begun.safetensors"
    file.write_bytes((folder / "run" / "model.safetensors").read_bytes())
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    start = f"model.start={{file: {file.name}, sha256: {digest}}}"
    network = initial_network(load_study([*second, "data.size=[16,16]", start]))
    head, begun = head_keys(network), load_file(file)
    state = network.state_dict()
    taken = [name for name in begun if name in state and torch.equal(state[name], begun[name])]
    assert set(state) - head <= set(taken)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (("task.patch=4", *SMALL_UNET), ("task=segmentation", *SMALL_UNET)),
        ((*ROTATED, *SMALL_CNN), ("task=classification", *SMALL_CNN)),
    ],
    ids=["masked", "rotated"],
)
def test_sites_without_labels_pretrain_privately_and_a_study_begins_with_it(
    first: tuple[str, ...],
    second: tuple[str, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "data").mkdir()
    data = listed(tmp_path / "data", {})
    result = run(tmp_path / "run", data, "task=pretraining", *first, *PRIVATE)
    assert result["status"] == "completed", result["reason"]
    assert set(result["privacy"]) == set(SITES)
    check_begins(tmp_path, second, monkeypatch)


def test_sites_learn_which_image_a_view_is_of_and_a_study_begins_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "data").mkdir()
    data = listed(tmp_path / "data", {})
    asked = ("task=pretraining", "method=contrastive", "task.out_channels=8", *SMALL_CNN, *SHIFT)
    learning = ("rounds=2", "evaluate_every=2", "training.local_epochs=8", "training.lr=0.01")
    result = run(tmp_path / "run", data, *asked, *learning)
    assert result["status"] == "completed", result["reason"]
    before, after = (of["mean"]["unexplained"] for of in (result["initial"], result["final"]))
    assert after < before
    assert set(result["final"]["sites"]) == set(SITES)
    check_begins(tmp_path, ("task=classification", *SMALL_CNN), monkeypatch)


def test_a_site_without_labels_is_told_so_where_labels_are_asked(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    result = run(tmp_path / "run", listed(tmp_path / "data", {}), *SMALL_UNET)
    assert result["status"] == "failed"
    assert "data: files of this site cannot be used" in result["reason"]
