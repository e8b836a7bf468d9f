import math
import re
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from common.tasks.classification import ClassificationConfig
from common.tasks.registry import build_task
from common.tasks.task import Sums
from common.tasks.tempered import best_temperature, metric_of, tempered

GRID = [0.5, 1.0, 2.5]
TASK = build_task(ClassificationConfig(name="classification", temperatures=GRID))


def rows(count: int, seed: int, sure: float) -> tuple[list[Sums], torch.Tensor, torch.Tensor]:
    draws = torch.Generator().manual_seed(seed)
    logits = sure * torch.randn(count, 2, generator=draws)
    target = torch.multinomial((logits / sure).softmax(1), 1, generator=draws)[:, 0]
    each = zip(logits.softmax(1), target, strict=True)
    return [TASK.patient_sums([TASK.measure(p, t, ())]) for p, t in each], logits, target


def added(some: list[Sums]) -> Sums:
    return {key: np.sum([row[key] for row in some], axis=0) for key in some[0]}


@given(temperature=st.floats(0.3, 5.0))
def test_a_tempered_answer_is_that_of_the_logits_over_the_temperature(temperature: float) -> None:
    logits = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    found = tempered(logits.softmax(1), temperature)
    torch.testing.assert_close(found, (logits / temperature).softmax(1), rtol=1e-4, atol=1e-5)
    config = ClassificationConfig(name="classification", temperature=temperature)
    torch.testing.assert_close(
        build_task(config).activate(logits), (logits / temperature).softmax(1)
    )


def test_likelihoods_are_those_of_the_definition_and_others_are_as_they_were() -> None:
    some, logits, target = rows(12, 0, 3.0)
    values = TASK.score(added(some))
    for temperature in GRID:
        expected = float(F.cross_entropy(logits / temperature, target))
        assert values[metric_of(temperature)] == pytest.approx(expected, rel=1e-4)
    plain = build_task(ClassificationConfig(name="classification"))
    assert plain.metrics.keys() == TASK.metrics.keys() - {metric_of(t) for t in GRID}
    assert values["auroc"] == plain.score(added(some))["auroc"]
    assert metric_of(2.5) == "nll_at_2p5"


@given(seed=st.integers(0, 99), first=st.integers(1, 20), second=st.integers(1, 20))
def test_the_best_of_all_sites_is_what_all_patients_in_one_place_would_have_given(
    seed: int, first: int, second: int
) -> None:
    one, other = rows(first, seed, 2.0)[0], rows(second, seed + 100, 2.0)[0]
    told = {
        name: {m: (value, len(some)) for m, value in TASK.score(added(some)).items()}
        for name, some in (("north", one), ("south", other))
    }
    best = best_temperature(told, GRID)
    assert best is not None
    together = TASK.score(added([*one, *other]))
    for temperature in GRID:
        assert best[1][f"{temperature:g}"] == pytest.approx(together[metric_of(temperature)])
    assert best[0] == min(GRID, key=lambda t: best[1][f"{t:g}"])


def test_answers_that_are_too_sure_get_a_temperature_above_one() -> None:
    some, _, _ = rows(400, 1, 2.5)
    told = {"site": {name: (v, 400) for name, v in TASK.score(added(some)).items()}}
    best = best_temperature(told, GRID)
    assert best is not None
    assert best[0] == 2.5
    assert best_temperature({"site": {}}, GRID) is None


def test_what_is_told_is_the_temperature_itself_whatever_the_study_has_already() -> None:
    plain, warm = (
        build_task(ClassificationConfig(name="classification", temperatures=GRID, temperature=t))
        for t in (None, 2.0)
    )
    logits = 3 * torch.randn(12, 2, generator=torch.Generator().manual_seed(0))
    target = torch.arange(12) % 2
    first, second = (
        task.score(
            added(
                [
                    task.patient_sums([task.measure(p, t, ())])
                    for p, t in zip(task.activate(logits), target, strict=True)
                ]
            )
        )
        for task in (plain, warm)
    )
    for temperature in GRID:
        name = metric_of(temperature)
        assert first[name] == pytest.approx(second[name], rel=1e-4)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"temperatures": []}, "give 2 to 16"),
        ({"temperatures": [1.0]}, "give 2 to 16"),
        ({"temperatures": [1.0 + k / 10 for k in range(17)]}, "give 2 to 16"),
        ({"temperatures": [1.0, 1.0000001]}, "give 2 to 16"),
        ({"temperatures": [1.0, math.inf]}, "temperatures"),
        ({"temperature": 0.0}, "task.temperature=0.0"),
        ({"temperature": math.inf}, "task.temperature=inf"),
    ],
)
def test_temperatures_that_cannot_be_told_apart_or_used_are_named(
    settings: dict[str, Any], told: str
) -> None:
    with pytest.raises(ValueError, match=re.escape(told)):
        ClassificationConfig(name="classification", **settings)


def test_noised_metrics_tell_of_no_temperature() -> None:
    some, _, _ = rows(20, 0, 1.0)
    total = added([TASK.bounded.row(row) for row in some])
    values = TASK.score(TASK.bounded.restore(total, 20))
    assert not any(name.startswith("nll_at_") for name in values)


def test_a_threshold_of_each_site_and_one_temperature_do_not_go_together() -> None:
    with pytest.raises(ValueError, match="set one of them to null"):
        ClassificationConfig(name="classification", temperatures=GRID, threshold_share=0.2)
