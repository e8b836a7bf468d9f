import json
from dataclasses import replace
from io import BytesIO, StringIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console
from scipy.stats import norm

from common.accounting import PrivateSteps, gaussian_release
from common.schema import SettingsError
from simulation.audit import AuditConfig, Findings
from simulation.audit_bound import Bound, Interval
from simulation.audit_show import carry_out_audit, most_allowed, picture_of, table_of
from simulation.run import composed

FOUND = Findings(
    patients=120,
    steps=60,
    noise_multiplier=1.9,
    noise_seen=1.89,
    noise_short=False,
    study_delta=0.004,
    study_epsilon=8.0,
    delta=1e-5,
    claimed_epsilon=12.2,
    canaries=4,
    canaries_in=2,
    bound=Bound(epsilon=1.6, guesses=4, correct=3),
    most_to_show=3.8,
    auc=Interval(value=0.75, low=0.22, high=0.97),
    scores=[0.1, -0.4, 0.9, 0.3],
    present=[True, False, True, False],
)


def printed(found: Findings) -> str:
    console = Console(width=120, record=True, file=StringIO())
    console.print(table_of(found, "a study, a site"))
    return console.export_text()


def test_the_table_tells_claim_bound_and_guesses() -> None:
    text = printed(FOUND)
    for told in ("8.00", "12.20", "1.60", "3.80", "4, 3", "0.750, 0.220 - 0.970", "1.900, 1.890"):
        assert told in text
    assert "1.900, -" in printed(replace(FOUND, noise_seen=None))


def test_a_claim_is_broken_by_the_bound_or_by_the_noise() -> None:
    assert FOUND.stands
    assert not replace(FOUND, noise_short=True).stands
    assert not replace(FOUND, bound=replace(FOUND.bound, epsilon=12.3)).stands


@pytest.mark.parametrize("noise", [0.5, 1.0, 3.0])
def test_the_most_that_a_gaussian_allows_is_its_roc_curve(noise: float) -> None:
    false_rate = np.linspace(0.001, 0.999, 50)
    exact = norm.cdf(norm.ppf(false_rate) + 1 / noise)
    most = most_allowed(false_rate, [gaussian_release(noise)])
    assert (most >= exact - 1e-6).all()
    assert (most <= exact + 0.01).all()


def test_the_picture_is_a_png() -> None:
    cost = PrivateSteps(noise_multiplier=1.9, sample_rate=0.5, steps=60)
    with Image.open(BytesIO(picture_of(FOUND, [cost]))) as picture:
        assert picture.format == "PNG"
        assert min(picture.size) > 500


def test_a_study_without_privacy_has_no_claim_to_audit(tmp_path: Path) -> None:
    run = composed(tmp_path / "run", ["experiment=smoke", "privacy=none"])
    with pytest.raises(SettingsError, match=r"privacy\.mechanism=none"):
        carry_out_audit(run, AuditConfig(), Console(quiet=True))


def test_a_folder_in_use_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text("{}")
    run = composed(tmp_path, ["experiment=smoke"])
    with pytest.raises(SettingsError, match="not empty"):
        carry_out_audit(run, AuditConfig(), Console(quiet=True))
    assert json.loads((tmp_path / "run.json").read_text()) == {}
