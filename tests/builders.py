"""Tiny studies, tiny hospitals on disk, and a ClientApp of plain numbers."""

import csv
import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch
import yaml
from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp
from numpy.typing import NDArray
from PIL import Image

from client.cohort import Samples
from client.privacy.ledger import ledgers_in
from client.privacy.policy import open_policy
from client.trainer import Trainer
from common.accounting import PrivateSteps
from common.config import load_study, study_digest
from common.contract import (
    Answer,
    Description,
    Estimate,
    EvaluateReply,
    PrivacySpent,
    Profile,
    Released,
    Request,
    StudyReference,
    TrainReply,
)
from common.messages import pack_answer, reply, unpack_request, unpack_weights
from common.state import Arrays, arrays_of
from common.study import Study
from server.records import SiteRound
from server.run import initial_network, shared_state

PICTURES = (
    "model=cnn",
    "task=classification",
    "data=pictures",
    "model.channels=[4,8]",
    "data.size=[16,16]",
    "data.augment=none",
    "rounds=2",
)
SLICES = (
    "model=unet",
    "model.channels=[4,8]",
    "model.strides=[2]",
    "model.num_res_units=0",
    "data.size=[16,16]",
    "rounds=2",
)
PRIVATE = ("privacy.mechanism=dp_sgd", "privacy.noise_multiplier=1.0")


@functools.cache
def study_from(*overrides: str) -> Study:
    """Return the study of the overrides."""
    return load_study(overrides)


def request_for(
    *overrides: str, round_number: int = 1, evaluate: bool = False, compare: bool = False
) -> Request:
    """Return what a server of the study asks."""
    reference = StudyReference(
        overrides=list(overrides), digest=study_digest(study_from(*overrides))
    )
    return Request(study=reference, round=round_number, evaluate=evaluate, compare=compare)


def after_the_rounds(*overrides: str) -> Request:
    """Return what a server asks when the rounds of the study, two, are over."""
    return request_for(*overrides, round_number=2, evaluate=True, compare=True)


def compared_by(trainer: Trainer, *overrides: str) -> EvaluateReply:
    """Return what a site tells then."""
    released = trainer.evaluate(after_the_rounds(*overrides), initial_weights(*overrides))
    assert released.weights is None
    assert isinstance(released.body, EvaluateReply)
    return released.body


def initial_weights(*overrides: str) -> Arrays:
    """Return what a server of the study sends in its first round."""
    study = study_from(*overrides)
    return arrays_of(shared_state(study, initial_network(study)))


def write_site(folder: Path, name: str, rows: Sequence[Mapping[str, str]]) -> Path:
    """Write the manifest and the site.yaml of a hospital; return the latter's path."""
    with (folder / "manifest.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    path = folder / "site.yaml"
    (folder / "policy.yaml").write_text(yaml.safe_dump(asdict(open_policy())))
    settings = {"name": name, "manifest": "manifest.csv", "policy": "policy.yaml"}
    path.write_text(yaml.safe_dump(settings))
    return path


def pictures_site(
    folder: Path, name: str = "st-a", train: int = 4, test: int = 2, each: int = 1
) -> Path:
    """Write a hospital of grey pictures, `each` a patient; pneumonia is brighter in the middle."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(train + 10 * test)
    rows = []
    for patient in range(train + test):
        for image in range(each):
            pixels = rng.integers(0, 120, size=(16, 16), dtype=np.uint8)
            pixels[4:12, 4:12] += 100 * (patient % 2)
            file = f"{patient}-{image}.png"
            Image.fromarray(pixels).save(folder / file)
            rows.append(
                {
                    "image": file,
                    "label": ("normal", "pneumonia")[patient % 2],
                    "patient": f"p{patient}",
                    "split": "train" if patient < train else "test",
                }
            )
    return write_site(folder, name, rows)


def volumes_site(
    folder: Path, name: str = "st-v", train: int = 3, test: int = 1, slices: int = 3
) -> Path:
    """Write a hospital of NIfTI volumes with a bright square that the masks mark."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(slices)
    rows = []
    for patient in range(train + test):
        mask = np.zeros((16, 16, slices), np.uint8)
        mask[4:10, 5:11] = 1
        image = rng.normal(size=mask.shape).astype(np.float32) + 4 * mask
        affine = np.diag([1.0, 1.0, 5.0, 1.0])
        nib.save(nib.Nifti1Image(image, affine), folder / f"{patient}.nii")
        nib.save(nib.Nifti1Image(mask, affine), folder / f"{patient}-mask.nii")
        rows.append(
            {
                "image": f"{patient}.nii",
                "mask": f"{patient}-mask.nii",
                "patient": f"p{patient}",
                "split": "train" if patient < train else "test",
            }
        )
    return write_site(folder, name, rows)


def charges_at(folder: Path) -> list[PrivateSteps]:
    """Return what stands in the ledger of a site's data set; nothing where there is no ledger."""
    ledgers = ledgers_in(folder / "state" / "ledgers")
    return [steps for ledger in ledgers for steps in ledger.history()]


def spent(**changes: float) -> PrivacySpent:
    """Return an account as a site tells it."""
    told: dict[str, Any] = {
        "unit": "patient",
        "epsilon": 1.0,
        "epsilon_image": 1.0,
        "epsilon_life": 1.0,
        "delta": 1e-3,
        "noise_multiplier": 1.1,
        "sample_rate": 0.2,
        "steps": 7,
    }
    return PrivacySpent(**{**told, **changes})


def samples_of(images_each: Sequence[int], seed: int = 0, size: int = 8) -> Samples:
    """Return classification samples of one patient per entry, with so many images each."""
    draws = torch.Generator().manual_seed(seed)
    total = sum(images_each)
    patients = tuple(f"p{i:03d}" for i, count in enumerate(images_each) for _ in range(count))
    return Samples(
        images=torch.randn(total, 1, size, size, generator=draws),
        targets=torch.randint(2, (total,), generator=draws),
        patients=patients,
        volumes=tuple(range(total)),
        spacing_mm=((1.0, 1.0),) * total,
    )


Weights = dict[str, NDArray[np.generic]]
Work = Callable[[str, int, Weights], Weights]
"""(site, round, incoming weights) -> the update."""


def shifted(site: str, round_number: int, weights: Weights) -> Weights:
    """Return the weights moved by an amount of the site's own."""
    step = np.float32(0.01 * (1 + ord(site[-1]) - ord("a")) * round_number)
    return {name: (array + step).astype(array.dtype) for name, array in weights.items()}


def estimate(value: float | None) -> dict[str, Estimate]:
    """Return an AUROC as a site tells it."""
    return {"auroc": Estimate(value=value, low=value, high=value, n=2)}


def numbers_app(
    patients: Mapping[str, int],
    work: Work = shifted,
    train: Callable[[str, Message, Request], Message | None] = lambda *_: None,
    query: Callable[[str, Message], Message | None] = lambda *_: None,
    profile: Callable[[str, int], Profile | None] = lambda *_: None,
) -> ClientApp:
    """Return a ClientApp whose sites (name: training patients) answer with `work`.

    train, query: what a site answers instead, or None for the ordinary answer. profile: what it
    tells of so many images.
    """
    app = ClientApp()
    names = list(patients)

    def name_of(context: Context) -> str:
        return names[int(context.node_config["partition-id"])]

    @app.query()
    def describe(message: Message, context: Context) -> Message:
        name = name_of(context)
        about = Description(
            site=name,
            patients_train=patients[name],
            patients_held_out=2,
            images_train=patients[name],
            bad_files=0,
        )
        return query(name, message) or reply(packed(about), message)

    @app.train()
    def update(message: Message, context: Context) -> Message:
        name = name_of(context)
        asked = unpack_request(message.content)
        other = train(name, message, asked)
        if other is not None:
            return other
        weights = work(name, asked.round, dict(unpack_weights(message.content)))
        body = trained(name, asked.round, patients[name], evaluated=asked.evaluate)
        return reply(packed(body, weights), message)

    @app.evaluate()
    def judge(message: Message, context: Context) -> Message:
        asked = unpack_request(message.content)
        name = name_of(context)
        body = EvaluateReply(
            site=name,
            round=asked.round,
            seconds=0.0,
            estimates=estimate(0.5),
            profile=profile(name, patients[name] + 2) if asked.compare else None,
        )
        return reply(packed(body), message)

    return app


def packed(body: Answer, weights: Arrays | None = None) -> RecordDict:
    """Return the records of an answer that no gate has seen: these sites have no patients."""
    return pack_answer(Released(body=body, weights=weights))


def trained(site: str, round_number: int, patients: int, evaluated: bool = False) -> TrainReply:
    """Return the body of an ordinary update."""
    return TrainReply(
        site=site,
        round=round_number,
        patients=patients,
        steps=1,
        seconds=0.0,
        train_loss=1.0,
        estimates=estimate(0.4 + 0.1 * round_number) if evaluated else {},
    )


def site_round(**changes: Any) -> SiteRound:
    """Return a site's part in a round, of next to nothing but the changes."""
    nothing = {
        "seconds": 1.0,
        "bytes_sent": 1,
        "bytes_received": 1,
        "steps": 1,
        "train_loss": None,
        "before": {},
        "privacy": None,
        "weight": 1.0,
    }
    return SiteRound(**{**nothing, **changes})
