import pytest
import torch

from common.config import load_study
from common.study import Study
from simulation.benchmark.local_loop import (
    CPU,
    LOADS,
    MEASURED,
    Load,
    bare_loop,
    made_up_samples,
    network_of,
    our_loop,
    row_of,
)

STEPS = 2


def study_of(load: Load) -> Study:
    return load_study([*load.overrides, f"training.local_steps={STEPS}"])


@pytest.mark.parametrize("load", LOADS, ids=lambda load: load.name)
def test_both_loops_give_the_same_weights(load: Load) -> None:
    study = study_of(load)
    samples = made_up_samples(study, STEPS)
    ours = network_of(study, our_loop, samples).state_dict()
    bare = network_of(study, bare_loop, samples).state_dict()
    assert ours.keys() == bare.keys()
    assert all(torch.equal(ours[name], bare[name]) for name in ours)


@pytest.mark.parametrize("load", LOADS, ids=lambda load: load.name)
def test_a_loop_changes_the_weights(load: Load) -> None:
    study = study_of(load)
    samples = made_up_samples(study, STEPS)
    untouched = network_of(study, lambda *_: None, samples).parameters()
    trained = network_of(study, bare_loop, samples).parameters()
    assert any(not torch.equal(a, b) for a, b in zip(untouched, trained, strict=True))


@pytest.mark.parametrize("load", LOADS, ids=lambda load: load.name)
def test_samples_are_just_one_epoch_and_of_every_class(load: Load) -> None:
    study = study_of(load)
    samples = made_up_samples(study, STEPS)
    assert len(samples.images) == len(samples.targets) == STEPS * study.training.batch_size
    assert samples.num_patients == len(samples.images)
    assert set(samples.targets.unique().tolist()) == {0, 1}


def test_no_row_draws_random_changes() -> None:
    assert [study_of(load).data.augment for load in LOADS] == ["none"] * len(LOADS)


def test_ratio_lies_between_its_ends() -> None:
    row = row_of(next(load for load in LOADS if load.name == "cnn"), 1, CPU)
    assert row["lowest"] <= row["ratio"] <= row["highest"]
    assert row["ours_per_s"] > 0
    assert row["bare_per_s"] > 0


def test_where_there_is_no_gpu_the_row_says_so() -> None:
    measured = row_of(LOADS[-1], 1, CPU)
    row = row_of(LOADS[-1], 1, torch.device("cuda"), "PyTorch sees no GPU here")
    assert row.keys() == measured.keys()
    assert row["why_not"] == "PyTorch sees no GPU here"
    assert {row[name] for name in MEASURED} == {"-"}
    assert row["name"] != measured["name"]
