from common.tasks.catalogue import CARDS, catalogue
from common.tasks.config import LossConfig, TaskConfig
from common.tasks.registry import TASKS, build_task, task_config_type


def test_every_task_is_in_the_catalogue_with_its_own_metrics() -> None:
    assert set(CARDS) == set(TASKS)
    for row in catalogue():
        assert set(row) == {"name", "losses", "metrics", "dp", "told"}
        assert all(row["metrics"].values())


def test_a_task_learns_by_each_loss_that_is_told_of_it() -> None:
    for row in catalogue():
        for loss in row["losses"]:
            usual: dict[str, object] = {}
            if row["name"] == "segmentation":
                usual = {"classes": ["lesion"], "label_values": [1]}
            kind: type[TaskConfig] = task_config_type(row["name"])
            config = kind(name=row["name"], loss=LossConfig(name=loss), **usual)
            assert build_task(config).config is config
