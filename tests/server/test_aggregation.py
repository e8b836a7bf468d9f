import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from server.aggregation import named_means, refusal_of, weight_of, weighted_mean, weighted_sums

FINITE = st.floats(-1e6, 1e6, width=32)
REFERENCE = {
    "weight": np.zeros((3, 4), np.float32),
    "bias": np.zeros(3, np.float32),
    "count": np.array(2, np.int64),
}


def update() -> dict[str, np.ndarray]:
    return {
        "weight": np.ones((3, 4), np.float32),
        "bias": np.ones(3, np.float32),
        "count": np.array(5, np.int64),
    }


@given(
    values=st.lists(FINITE, min_size=1, max_size=8),
    weights=st.lists(st.integers(1, 1000), min_size=1, max_size=6),
)
def test_mean_of_identical_updates_is_that_update(values: list[float], weights: list[int]) -> None:
    arrays = {"w": np.array(values, np.float32)}
    mean = weighted_mean((arrays, weight) for weight in weights)
    assert mean is not None
    assert mean["w"].float().numpy().tobytes() == arrays["w"].tobytes()


@given(st.lists(st.tuples(st.lists(FINITE, min_size=3, max_size=3), st.floats(0.01, 1e4))))
def test_mean_is_the_naive_formula(updates: list[tuple[list[float], float]]) -> None:
    told = [({"w": np.array(values, np.float32)}, weight) for values, weight in updates]
    mean = weighted_mean(told)
    if not told:
        assert mean is None
        return
    total = sum(weight for _, weight in told)
    naive = sum(arrays["w"].astype(np.float64) * weight for arrays, weight in told) / total
    assert mean is not None
    assert mean["w"].dtype == torch.float64
    np.testing.assert_allclose(mean["w"].numpy(), naive, rtol=1e-12, atol=1e-9)


@given(st.lists(FINITE, min_size=2, max_size=9))
def test_the_same_order_gives_the_same_bytes(values: list[float]) -> None:
    told = [({"w": np.array([v], np.float32)}, 1.0 + k) for k, v in enumerate(values)]
    one, two = weighted_mean(told), weighted_mean(iter(told))
    assert one is not None
    assert two is not None
    assert one["w"].numpy().tobytes() == two["w"].numpy().tobytes()


def test_combining_leaves_the_updates_as_they_were() -> None:
    told = [({"w": np.ones(2, np.float32)}, 2.0), ({"w": np.zeros(2, np.float32)}, 1.0)]
    weighted_mean(told)
    assert (told[0][0]["w"] == 1).all()
    assert (told[1][0]["w"] == 0).all()


def test_counters_take_the_largest_value_and_keep_their_dtype() -> None:
    told = [({"n": np.array(value, np.int64)}, 1.0) for value in (3, 9, 4)]
    mean = weighted_mean(told)
    assert mean is not None
    assert mean["n"].dtype == torch.int64
    assert int(mean["n"]) == 9


def test_sums_are_told_with_what_they_weigh() -> None:
    told = [({"w": np.array([2.0], np.float32)}, 3.0), ({"w": np.array([5.0], np.float32)}, 0.5)]
    sums, weight = weighted_sums(told)
    assert (sums["w"].tolist(), weight) == ([8.5], 3.5)
    assert weighted_sums([]) == ({}, 0.0)


@pytest.mark.parametrize("weight", [0.0, -1.0, float("nan")])
def test_a_weight_that_is_not_positive_is_refused(weight: float) -> None:
    with pytest.raises(ValueError, match="weight"):
        weighted_mean([({"w": np.ones(1, np.float32)}, weight)])


def test_an_update_of_the_models_form_is_accepted() -> None:
    assert refusal_of(update(), REFERENCE) is None


@pytest.mark.parametrize(
    ("name", "array", "told"),
    [
        ("weight", np.full((3, 4), np.nan, np.float32), "weight holds 12 values that are NaN"),
        ("bias", np.array([0, np.inf, 0], np.float32), "bias holds 1 values that are NaN or inf"),
        ("weight", np.ones((4, 3), np.float32), "(4, 3), the model has (3, 4)"),
        ("weight", np.ones((1, 4), np.float32), "(1, 4), the model has (3, 4)"),
        ("bias", np.ones(3, np.float64), "bias has dtype float64, the model has float32"),
        ("count", np.array(5, np.int32), "count has dtype int32, the model has int64"),
        ("bias", np.array(["a", "b", "c"]), "bias has dtype"),
    ],
)
def test_a_refusal_names_the_tensor_and_what_is_wrong(
    name: str, array: np.ndarray, told: str
) -> None:
    assert told in str(refusal_of({**update(), name: array}, REFERENCE))


def test_a_refusal_names_missing_and_extra_tensors() -> None:
    changed = update()
    changed["intruder"] = changed.pop("bias")
    told = str(refusal_of(changed, REFERENCE))
    assert "missing: bias" in told
    assert "not in the model: intruder" in told


def test_weights_are_patients_or_one() -> None:
    assert weight_of(7, "patients") == 7.0
    assert weight_of(7, "uniform") == 1.0


def test_a_mean_over_sites_leaves_out_where_it_is_not_defined() -> None:
    values = {"a": {"x": 1.0, "y": None}, "b": {"x": 2.0}, "c": {"x": None, "y": None}}
    assert named_means(values) == {"x": 1.5, "y": None}
