"""Laws that hold for every task."""

from pathlib import Path

import pytest
import torch
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

import configs
from common.schema import typed
from common.tasks.classification import ClassificationConfig
from common.tasks.multilabel import MultilabelConfig
from common.tasks.pretraining import PretrainingConfig
from common.tasks.registry import TASKS, Task, build_task, task_config_type
from common.tasks.restoration import RestorationConfig
from common.tasks.segmentation import SegmentationConfig
from common.tasks.survival import SurvivalConfig, in_intervals

FOLDER = Path(str(configs.__file__)).parent / "task"
EXAMPLES = [
    SegmentationConfig(
        name="segmentation", classes=["core", "edema"], label_values=[1, 2], out_channels=3
    ),
    SegmentationConfig(name="segmentation", classes=["lesion"], label_values=[255]),
    ClassificationConfig(name="classification"),
    ClassificationConfig(name="classification", classes=["a", "b", "c"], out_channels=3),
    MultilabelConfig(name="multilabel", classes=["a", "b", "c"], out_channels=3),
    RestorationConfig(name="restoration"),
    SurvivalConfig(name="survival", truth_column="risk"),
    PretrainingConfig(name="pretraining"),
]
ALL = pytest.mark.parametrize("config", EXAMPLES, ids=lambda c: f"{c.name}-{len(c.classes)}")


def batch_for(task: Task, count: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    classes = task.config.out_channels
    spatial = (8, 9) if task.config.dense else ()
    logits = torch.randn(count, classes, *spatial, generator=generator)
    if task.config.grey:
        # What is true, and the one reference of the task's usual forward model.
        targets = torch.rand(count, 2, *spatial, generator=generator)
        if task.config.name == "pretraining":
            targets[:, 1] = (targets[:, 1] > 0.5).float()
        return logits, targets
    if task.config.name == "survival":
        times = 5 * torch.rand(count, 1, generator=generator)
        events = (torch.arange(count)[:, None] % 2).float()
        return logits, torch.cat([times, events, times], dim=1)
    if task.config.name == "multilabel":
        return logits, torch.randint(2, (count, classes), generator=generator)
    shape = (count, 1, *spatial) if spatial else (count,)
    return logits, torch.randint(classes, shape, generator=generator)


@ALL
def test_loss_of_a_batch_is_the_mean_of_its_images(config: object) -> None:
    task = build_task(config)  # type: ignore[arg-type]
    logits, target = batch_for(task, 5)
    single = [task.loss(logits[i : i + 1], target[i : i + 1]) for i in range(5)]
    torch.testing.assert_close(task.loss(logits, target), torch.stack(single).mean())


@ALL
def test_loss_is_a_float32_scalar_even_of_bfloat16_logits(config: object) -> None:
    task = build_task(config)  # type: ignore[arg-type]
    logits, target = batch_for(task, 2)
    loss = task.loss(logits.bfloat16(), target)
    assert (loss.shape, loss.dtype) == ((), torch.float32)


@ALL
def test_loss_falls_where_the_logits_point_to_the_target(config: object) -> None:
    task = build_task(config)  # type: ignore[arg-type]
    logits, target = batch_for(task, 3)
    if task.config.grey:
        pointing = target[:, :1]
    elif isinstance(task.config, SurvivalConfig):
        _, happened = in_intervals(target, torch.tensor(task.config.cuts))
        pointing = 40.0 * happened - 20.0
    elif task.config.name == "multilabel":
        pointing = 40.0 * target - 20.0
    else:
        axis = target if target.ndim > 1 else target[:, None]
        pointing = torch.zeros_like(logits).scatter(1, axis, 20.0)
    assert task.loss(pointing, target) < 0.01 < task.loss(logits, target)


@ALL
def test_probabilities_are_float32_and_of_one_class_alone_sum_to_one(config: object) -> None:
    task = build_task(config)  # type: ignore[arg-type]
    logits, _ = batch_for(task, 2)
    probabilities = task.activate(logits.bfloat16())
    assert probabilities.dtype == torch.float32
    assert probabilities.shape == logits.shape
    if task.config.name != "pretraining":
        assert ((probabilities >= 0) & (probabilities <= 1)).all()
    if task.config.name not in ("multilabel", "survival") and not task.config.grey:
        torch.testing.assert_close(probabilities.sum(1), torch.ones_like(probabilities[:, 0]))


@ALL
def test_scores_are_the_metrics_that_are_declared(config: object) -> None:
    task = build_task(config)  # type: ignore[arg-type]
    logits, target = batch_for(task, 4)
    spacing = [1.0] * (logits.ndim - 2)
    records = [
        task.measure(p, t, spacing) for p, t in zip(task.activate(logits), target, strict=True)
    ]
    assert task.score(task.patient_sums(records)).keys() == task.metrics.keys()
    assert task.config.headline in task.metrics


@ALL
def test_every_metric_says_what_it_means(config: object) -> None:
    metrics = build_task(config).metrics  # type: ignore[arg-type]
    assert all(metric.meaning and metric.unit in ("", "mm", "dB") for metric in metrics.values())


@pytest.mark.parametrize("name", sorted(TASKS))
def test_yaml_validates(name: str) -> None:
    tree = OmegaConf.load(FOLDER / f"{name}.yaml")
    assert isinstance(tree, DictConfig)
    config = typed(tree, task_config_type(name), "task")
    assert build_task(config).config is config
    assert set(tree) == set(OmegaConf.structured(task_config_type(name)))


def test_every_yaml_is_of_a_task() -> None:
    assert {file.stem for file in FOLDER.glob("*.yaml")} == set(TASKS)


def test_unknown_name_lists_the_known() -> None:
    with pytest.raises(ValueError, match=r"task.name='detection' is not known.*classification"):
        task_config_type("detection")


def test_settings_of_another_task_are_refused() -> None:
    with pytest.raises(ValueError, match=r"'segmentation' came with ClassificationConfig"):
        build_task(ClassificationConfig(name="segmentation"))
