import pytest

from common.strategy_config import ROBUST, StrategyConfig

STOOD = {"faulty": 1, "quorum": 5, "weight_by": "uniform"}


@pytest.mark.parametrize("combine", ROBUST)
def test_a_robust_way_goes_with_a_number_of_faulty_sites_and_a_quorum_for_them(
    combine: str,
) -> None:
    assert StrategyConfig(combine=combine, **STOOD).faulty == 1  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"combine": "mode"}, "strategy.combine='mode'"),
        ({"combine": "median"}, "strategy.faulty=None"),
        ({"faulty": 1}, "mean stands no faulty update"),
        ({**STOOD, "combine": "median", "faulty": -1}, "strategy.faulty=-1"),
        ({**STOOD, "combine": "median", "quorum": 2}, "set quorum to 3 or more"),
        ({**STOOD, "combine": "trimmed_mean", "faulty": 3}, "set quorum to 7 or more"),
        ({**STOOD, "combine": "krum", "quorum": 4}, "set quorum to 5 or more"),
        ({**STOOD, "combine": "krum", "weight_by": "patients"}, "set it to uniform"),
        ({**STOOD, "combine": "krum", "fairness_q": 1.0}, "strategy.fairness_q=1.0"),
        ({**STOOD, "combine": "median", "generalisation_step": 0.2}, "generalisation_step"),
        ({**STOOD, "combine": "median", "agnostic_step": 0.2}, "strategy.agnostic_step=0.2"),
        ({**STOOD, "combine": "median", "control_variates": True}, "control_variates=True"),
        (
            {"fairness_q": 1.0, "agnostic_step": 0.1},
            "agnostic_step=0.1 each set the sites' weights",
        ),
        ({"generalisation_step": 0.2, "agnostic_step": 0.1}, "set all but one of them to null"),
        ({"fairness_q": 2.0, "control_variates": True}, "correct for one mean of them alone"),
        ({"generalisation_step": 0.2, "control_variates": True}, "set one of the two to null"),
        ({"agnostic_step": 0.0}, "strategy.agnostic_step=0"),
        ({"generalisation_step": 1.5}, "strategy.generalisation_step=1.5"),
    ],
)
def test_what_does_not_go_together_is_named_with_the_way_out(
    settings: dict[str, object], told: str
) -> None:
    with pytest.raises(ValueError, match=told):
        StrategyConfig(**settings)  # type: ignore[arg-type]
