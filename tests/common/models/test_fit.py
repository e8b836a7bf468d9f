import pytest

from common.models.fit import check_fits
from tests.builders import study_from

CLASSES = "task=classification"
ONE = "model.out_channels=1"


@pytest.mark.parametrize(
    "overrides",
    [
        ("model=deepmedic",),
        ("model=deepmedic", "data.size=[40,40]", "data.segment=[34,34]"),
        ("model=deepmedic", "data.size=[40,40]", "data.segment=[32,32]", "model.segment=null"),
        ("model=unet_plus_plus", "model.deep_supervision=true"),
        ("model=vgg16", CLASSES, "data=pictures"),
        ("model=unetr", "data.size=[32,48]"),
        ("model=dynunet", "data.segment=[32,32]", "data.size=[64,40]"),
        (ONE,),
    ],
)
def test_a_network_that_takes_the_images_passes(overrides: tuple[str, ...]) -> None:
    check_fits(study_from(*overrides))


@pytest.mark.parametrize(
    ("overrides", "text"),
    [
        (("model=dynunet", "data.size=[20,20]"), r"data.size=\[20, 20\] does not work"),
        (("model=unet", "data.segment=[30,30]"), r"data.segment=\[30, 30\] does not work"),
        (("model=vgg16", "data.size=[16,16]", CLASSES), "does not work"),
        (
            ("model=resnet18", "model.channels=[4,4,4,4]", "data.size=[16,16]", CLASSES),
            "more than 1 value per channel",
        ),
        (("model=vit",), "needs .*one answer a voxel.*wardround-sim models"),
        (("training.lr_factors={heads: 2.0}",), "lr_factors has 'heads'"),
        (("model.trained=[head]", "model.local=[head]"), "nothing to be learned together"),
        (
            ("model=unet", "data.size=[31,33]"),
            r"does not work.*give sides that are multiples of 4, as \[32, 36\]",
        ),
        (("model=unet", CLASSES), "one answer an image"),
        (
            ("model=deepmedic", "data.size=[40,40]", "data.segment=[32,32]"),
            r"multiples of 3 voxels .*give data.segment=\[34, 34\]",
        ),
        (
            ("model=deepmedic", "task=pretraining", "data.size=[40,40]", "data.segment=[34,34]"),
            r"task.name=pretraining .* set model.segment=null",
        ),
        (("model.out_channels=3",), r"answers of shape \[3, .* needs \[2, "),
        (
            (*("task.classes=[a,b]", "task.label_values=[1,2]", "task.out_channels=3"), ONE),
            r"answers of shape \[1, .* needs \[3, ",
        ),
        (
            (CLASSES, "model=cnn", ONE, "data=pictures"),
            r"answers of shape \[1\].* needs \[2\]",
        ),
    ],
)
def test_one_that_does_not_is_refused_with_the_sizes(overrides: tuple[str, ...], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        check_fits(study_from(*overrides))
