"""Survival of a public table, without images: hazards of four centres beside Cox's in one place.

    python -m simulation.benchmark.cox [--json] [--quick]

The North Central Cancer Treatment Group's patients with advanced lung cancer (Loprinzi et al., JCO
1994; in lifelines, pip install 'wardround[tables]'), whose institutions are dealt to four centres.
Network, loss, covariates, federated averaging and C-index are those of a study with images, of
which every one is black here. Each patient is ranked by models that were trained without the
patient's fold; Cox's model (lifelines) has the table of all centres at hand.
"""

import sys
from collections.abc import Sequence
from copy import deepcopy
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from client.alone import train_alone
from client.cohort import Samples
from client.evaluation import patient_rows, predict
from common.config import load_study
from common.covariates import encoded
from common.models.late_fusion import with_covariates
from common.models.registry import build_model
from common.seeding import generator
from common.state import arrays_of, state_of
from common.study import Study
from common.tasks.registry import build_task
from common.tasks.task import Sums
from server.aggregation import weighted_mean
from simulation.benchmark.table import Row, begin_with_environment, run_benchmark

if TYPE_CHECKING:
    import pandas as pd

CPU = torch.device("cpu")
CENTRES, FOLDS = 4, 4
COVARIATES = ("age", "sex", "ecog", "karno", "loss")
COLUMNS = {"ph.ecog": "ecog", "ph.karno": "karno", "wt.loss": "loss"}
SETTINGS = (
    "task=survival",
    "task.cuts=[90,180,270,360,540,720]",
    "task.out_channels=6",
    "task.truth_column=cox",
    "model=cnn",
    "model.channels=[4]",
    "data=pictures",
    "data.size=[4,8]",
    "data.augment=none",
    "data.covariates={age: [35, 85], sex: [F, M], ecog: [0, 3], karno: [40, 100], loss: [-25, 70]}",
    "training.lr=0.01",
    "training.batch_size=16",
    "training.local_epochs=1",
    "training.schedule=cosine",
)


def main() -> None:
    """Train, and print the rows."""
    begin_with_environment()
    about = "lung cancer without images, C-index on held-out patients, mean of four centres"
    run_benchmark("cox", about, lambda quick: rows_of(10 if quick else 40), sys.argv[1:])


def rows_of(rounds: int) -> list[Row]:
    """Return the C-index of the federation, and of Cox's model on all training patients."""
    study = load_study([*SETTINGS, f"rounds={rounds}"])
    task, table = build_task(study.task), lung()
    rows: list[dict[str, Sums]] = [{} for _ in range(CENTRES)]
    for fold in range(FOLDS):
        held_out = table.index % FOLDS == fold
        table["cox"] = cox_of(table[~held_out], table)
        model = federated(study, [of_centre(study, table[~held_out], c) for c in range(CENTRES)])
        for centre in range(CENTRES):
            samples = of_centre(study, table[held_out], centre)
            rows[centre] |= patient_rows(predict(model, samples, task, CPU), samples, task)
    found = [task.score(_total(list(of.values()))) for of in rows]
    names = {"federated, discrete time": "c_index", "Cox in one place": "c_index_truth"}
    return [
        {"name": name, "patients": len(table), "c_index": float(np.mean([c[key] for c in found]))}
        for name, key in names.items()
    ]


def lung() -> "pd.DataFrame":
    """Return the table with columns time, event, centre and the covariates, in a drawn order."""
    from lifelines.datasets import load_lung

    table = load_lung().rename(columns=COLUMNS).dropna(subset=["inst"])
    sizes = table["inst"].value_counts()
    # Largest institution first, always to the smallest centre.
    dealt, patients = {}, [0] * CENTRES
    for institution, size in sorted(sizes.items(), key=lambda each: (-each[1], each[0])):
        dealt[institution] = int(np.argmin(patients))
        patients[dealt[institution]] += size
    table["centre"] = table["inst"].map(dealt)
    table["event"] = (table["status"] == table["status"].max()).astype(int)
    order = torch.randperm(len(table), generator=generator(0)).tolist()
    return table.iloc[order].reset_index(drop=True)


def cox_of(train: "pd.DataFrame", everybody: "pd.DataFrame") -> "pd.Series":
    """Return the log-hazard of everybody by Cox's model of some; what is unknown is their mean."""
    from lifelines import CoxPHFitter

    asked = [*COVARIATES, "time", "event"]
    means = train[list(COVARIATES)].mean()
    model = CoxPHFitter().fit(train[asked].fillna(means), "time", "event")
    return model.predict_log_partial_hazard(everybody[list(COVARIATES)].fillna(means))


def of_centre(study: Study, table: "pd.DataFrame", centre: int) -> Samples:
    """Return a centre's patients as samples: black images, with covariates beside them."""
    table = table[table["centre"] == centre]
    black = torch.zeros(1, 1, *study.data.size)
    asked = study.data.covariates or {}
    cells = [
        {name: str(row[name]) for name in COVARIATES if row[name] == row[name]}
        | {"sex": "M" if row["sex"] == 1 else "F"}
        for _, row in table.iterrows()
    ]
    return Samples(
        images=torch.cat([with_covariates(black, encoded(of, asked)) for of in cells]),
        targets=torch.tensor(table[["time", "event", "cox"]].to_numpy(), dtype=torch.float32),
        patients=tuple(f"{number:03d}" for number in table.index),
        volumes=tuple(range(len(table))),
        spacing_mm=((1.0, 1.0),) * len(table),
    )


def federated(study: Study, centres: Sequence[Samples]) -> nn.Module:
    """Return what federated averaging makes of the centres, without a network between them."""
    model = build_model(study.model, study.seed)
    for number in range(1, study.rounds + 1):
        updates = []
        for centre, samples in enumerate(centres):
            own = deepcopy(model)
            train_alone(own, study, samples, str(centre), range(number, number + 1), CPU)
            updates.append((arrays_of(state_of(own)), float(samples.num_patients)))
        mean = weighted_mean(updates)
        assert mean is not None
        model.load_state_dict({name: tensor.float() for name, tensor in mean.items()})
    return model


def _total(rows: Sequence[Sums]) -> Sums:
    return {name: np.sum([row[name] for row in rows], axis=0) for name in rows[0]}


if __name__ == "__main__":
    main()
