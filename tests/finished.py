"""Run folders of finished studies, as small as they can be."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from common.config import canonical, study_digest
from common.domain import Domain
from common.files import write_json
from common.finished import MODEL, RESULT
from common.profile import FEATURE_NUMBERS
from common.tensor_files import write_tensors
from server.run import initial_network, shared_state
from tests.builders import study_from


def finished_run(folder: Path, *overrides: str, domain: Domain | None = None, **more: Any) -> Path:
    """Write the run folder of a study that ended with the weights that it began with.

    more: what else its result tells.
    """
    folder.mkdir(parents=True, exist_ok=True)
    study = study_from(*overrides)
    digest = study_digest(study)
    about = {"study": study.name, "digest": digest, "rounds": study.rounds}
    write_tensors(folder / MODEL, shared_state(study, initial_network(study)), about)
    result = {"study": json.loads(canonical(study)), "study_digest": digest, **more}
    if domain is not None:
        result["shift"] = {"domain": domain.told()}
    write_json(folder / RESULT, result)
    return folder


def domain_at(centre: float, spread: float = 1e-3, noise_std: float = 0.0) -> Domain:
    """Return a domain about a point on the diagonal of the features."""
    return Domain(
        patients=100,
        noise_std=noise_std,
        mean_F=np.full(FEATURE_NUMBERS, centre),
        covariance_FF=spread * np.eye(FEATURE_NUMBERS),
    )
