import pytest

from common.tasks.config import TaskConfig
from common.tasks.registry import task_config_type


@pytest.mark.parametrize("name", ["left ventricle", "", "2nd", "a/b", "a.b"])
def test_class_that_cannot_be_in_a_metric_name_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="cannot be part of a metric's name"):
        TaskConfig(name="any", classes=[name])


def test_class_named_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="names a class twice"):
        TaskConfig(name="any", classes=["cyst", "cyst"])


def test_no_logits_are_refused() -> None:
    with pytest.raises(ValueError, match=r"task\.out_channels=0"):
        TaskConfig(name="any", out_channels=0)


@pytest.mark.parametrize("name", ["pretraining", "restoration"])
def test_an_image_that_the_task_makes_itself_is_not_mirrored(name: str) -> None:
    with pytest.raises(ValueError, match="asks of an image that it makes itself"):
        task_config_type(name)(name=name, mirrored=True)
