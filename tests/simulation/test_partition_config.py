import pytest

from simulation.partition_config import PartitionConfig


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"by": "magic"}, "partition.by='magic'"),
        ({"held_out": "none"}, "partition.held_out='none'"),
        ({"alpha": 0.0}, "partition.alpha=0.0"),
        ({"sites": 0}, "partition.sites=0"),
        ({"columns": []}, "at least one column"),
        ({"patient_pattern": "p(\\d"}, "no regular expression"),
        ({"patient_pattern": "p\\d"}, "has no group"),
        ({"held_out": "shared"}, "real hospital's patients"),
        ({"leave_out": "a", "split_column": "split"}, "each decide who is tested"),
        ({"train_values": ["x"], "test_values": ["x"]}, "leave each value on one side"),
        ({"by": "dirichlet", "label_column": None}, "label_column is null"),
    ],
)
def test_settings_that_contradict_are_refused(given: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        PartitionConfig(**given)  # type: ignore[arg-type]
