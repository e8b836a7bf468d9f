import pytest

from common.training_config import TrainingConfig, learning_rate


def test_cosine_goes_from_lr_to_one_percent_of_it_and_never_up() -> None:
    training = TrainingConfig(lr=2.0, schedule="cosine")
    rates = [learning_rate(training, number, 11) for number in range(1, 12)]
    assert rates[0] == 2.0
    assert rates[-1] == pytest.approx(0.02)
    assert rates[5] == pytest.approx(2.0 * (0.01 + 0.99 / 2))
    assert rates == sorted(rates, reverse=True)
    assert learning_rate(training, 1, 1) == 2.0
    assert learning_rate(TrainingConfig(lr=2.0), 7, 11) == 2.0
