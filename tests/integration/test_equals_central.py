"""What federation must not change: the arithmetic of training."""

from pathlib import Path
from typing import Any

import nibabel as nib
import torch

from client.manifest import read_manifest
from client.site_data import cohort_of
from client.trainer import trainer_at
from common.config import load_study
from common.tasks.registry import build_task
from common.tensor_files import read_tensors
from server.run import initial_network

PLAIN = [
    "privacy=none",
    "rounds=1",
    "training.optimizer=sgd",
    "training.lr=0.1",
    "training.local_epochs=1",
    "training.batch_size=1000",
]
ALONE = ["simulation.hospitals.south=null"]


def _weights(runner: Any, name: str) -> dict[str, torch.Tensor]:
    return read_tensors(runner.folder / name / "model.safetensors")[0]


def test_one_site_with_one_full_batch_step_equals_plain_sgd(runner: Any) -> None:
    runner("one", *PLAIN, *ALONE)
    overrides = ("experiment=smoke", *PLAIN)
    study = load_study(overrides)
    site = trainer_at(next((runner.folder / "one" / "sites").iterdir()) / "site.yaml").site
    samples = cohort_of(site.manifest_path, overrides).train
    model = initial_network(study)
    build_task(study.task).loss(model(samples.images), samples.targets).backward()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter -= 0.1 * parameter.grad
    federated = _weights(runner, "one")
    for name, tensor in model.state_dict().items():
        # The order of the samples in the batch is shuffled: the last digits of a sum may differ.
        torch.testing.assert_close(federated[name], tensor, rtol=1e-5, atol=1e-6)


def test_identical_sites_equal_one(runner: Any) -> None:
    """Three sites with the same data, full batches and no drawing between them."""
    runner("alone", *PLAIN, *ALONE, "rounds=2")
    manifest = next((runner.folder / "alone").glob("data/*/manifest.csv"))
    root = _three_times(manifest, runner.folder / "real")
    runner("three", *PLAIN, "rounds=2", *_real(root))
    one, three = _weights(runner, "alone"), _weights(runner, "three")
    for name, tensor in one.items():
        torch.testing.assert_close(three[name], tensor, rtol=1e-5, atol=1e-6)


def _three_times(manifest: Path, root: Path) -> Path:
    root.mkdir()
    lines = ["path,mask,site,split"]
    for site in "abc":
        for row in read_manifest(manifest):
            copies = [root / f"{site}_{file.name}" for file in (row.image, row.mask)]
            for copy, file in zip(copies, (row.image, row.mask), strict=True):
                kind = root / file.parent.name
                kind.mkdir(exist_ok=True)
                image = nib.load(file)
                # The same voxels in other bytes: equal files would be one patient.
                image.header["descrip"] = site
                nib.save(image, kind / copy.name)
            names = [f"{file.parent.name}/{site}_{file.name}" for file in (row.image, row.mask)]
            lines.append(",".join([*names, site, row.split]))
    (root / "manifest.csv").write_text("\n".join(lines) + "\n")
    return root


def _real(root: Path) -> list[str]:
    return [
        "simulation=real",
        "simulation.engine=inprocess",
        f"data.root={root}",
        "+simulation.partition.by=column",
        "+simulation.partition.split_column=split",
        "+simulation.partition.label_column=null",
    ]
