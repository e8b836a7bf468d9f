"""What this hospital may expect of a study's model that it did not take part in, asked at home.

Of the study it takes result.json, of the hospital its images. Nothing of it leaves, so no policy is
asked and no ledger charged.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from client.cases import images_in
from client.manifest import Row
from client.profile import appearance_of
from client.readers import BadFileError
from client.site_data import rows_at
from common.contract import Profile
from common.finished import RESULT, result_at, study_in
from common.newcomer import MEASURE, Expected, joined_told
from common.schema import SettingsError
from common.study import Study

LEAST_PATIENTS = 10
"""From fewer the mean of their images is mostly chance, and looks far away from everybody."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """The answer for one hospital."""

    expected: Expected
    metric: str
    higher_is_better: bool
    patients: int
    bad_files: Sequence[BadFileError]
    score: Mapping[str, Any] | None
    """How the same went for the study's own sites, each left out (docs/result.md,
    shift.left_out.prediction); None where the study did not try."""

    @property
    def value(self) -> float:
        """The metric to expect here."""
        return self._turned(self.expected.predicted.drop)

    @property
    def interval(self) -> tuple[float, float]:
        """Its 95 % prediction interval, not cut to what is possible."""
        ends = self.expected.predicted.low, self.expected.predicted.high
        low, high = sorted(self._turned(end) for end in ends)
        return low, high

    def _turned(self, drop: float) -> float:
        mean = self.expected.mean
        return mean - drop if self.higher_is_better else mean + drop


def expected_at(run: Path, manifest: Path) -> Answer:
    """Return what the hospital of a manifest may expect of the model of a run folder.

    Raises:
        SettingsError: the run does not tell what it takes, or too few images can be used.
        ValueError: the sites of the study give no line.
    """
    result = result_at(run)
    study = study_in(result, run / RESULT)
    shift = result.get("shift") or {}
    if "newcomer" not in shift:
        raise SettingsError(
            f"{run / RESULT} does not tell how its sites' images look; it does of a study with "
            "evaluation=shift in which three sites or more let it leave "
            "(may_leave.profile_noise_multiplier of their policies)"
        )
    own, bad_files = profile_at(rows_at(manifest), study)
    name = result["headline"]
    return Answer(
        expected=joined_told(shift["newcomer"]).expected(own),
        metric=name,
        higher_is_better=result["metrics"][name]["higher_is_better"],
        patients=own.patients,
        bad_files=bad_files,
        score=shift.get("left_out", {}).get("prediction"),
    )


def profile_at(rows: Sequence[Row], study: Study) -> tuple[Profile, list[BadFileError]]:
    """Return how a hospital's images look, exactly, and what of its files cannot be used.

    Raises:
        SettingsError: too few patients are left.
    """
    found = defaultdict(list)
    bad_files = []
    for row in rows:
        try:
            images = images_in(row, study.data, study.task)
        except BadFileError as error:
            bad_files.append(error)
        else:
            found[row.patient].append(images)
    if len(found) < LEAST_PATIENTS:
        first = f", the first: {bad_files[0]}" if bad_files else ""
        raise SettingsError(
            f"the study can use images of {len(found)} patients here, and {LEAST_PATIENTS} are "
            f"needed for a mean that is not chance; {len(bad_files)} files cannot be used{first}"
        )
    channels = study.data.channels
    looks = [appearance_of(torch.cat(of)[:, :channels], study) for of in found.values()]
    parts = {MEASURE: np.mean(looks, axis=0).tolist()}
    return Profile(patients=len(found), noise_std=0.0, parts=parts), bad_files
