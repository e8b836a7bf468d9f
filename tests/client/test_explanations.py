import base64
import re
import stat
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from client.explanations import _answer, explain
from client.page import FOLDER
from client.trainer import trainer_at
from common.config import study_digest
from common.schema import SettingsError
from tests.builders import PICTURES, SLICES, initial_weights, pictures_site, request_for, study_from

DIGEST = study_digest(study_from(*PICTURES))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the settings of a site at which a study has ended."""
    yaml = pictures_site(tmp_path_factory.mktemp("site") / "a", train=8, test=6)
    request = request_for(*PICTURES, round_number=2, evaluate=True)
    trainer_at(yaml).evaluate(request, initial_weights(*PICTURES))
    return yaml


def patient_of(site: Path) -> str:
    with pytest.raises(SettingsError, match="no held-out patient") as told:
        explain(trainer_at(site).site, DIGEST, "nobody", ["saliency"])
    return str(told.value).partition("among them are: ")[2].split(", ")[0]


def test_a_patients_maps_are_drawn_into_a_file_that_is_the_owners_alone(site: Path) -> None:
    settings = trainer_at(site).site
    case = explain(settings, DIGEST[:8], patient_of(site), ["saliency", "grad_cam"])
    assert [one.method for one in case.found] == ["saliency", "grad_cam"]
    assert case.of_class in ("normal", "pneumonia")
    assert case.picture.parent == settings.state_path / FOLDER
    assert stat.S_IMODE(case.picture.stat().st_mode) == 0o600
    with Image.open(case.picture) as picture:
        assert picture.width > 2 * picture.height


def test_the_sites_page_has_each_patients_maps_once(site: Path) -> None:
    settings, patient = trainer_at(site).site, patient_of(site)
    first = explain(settings, DIGEST, patient, ["saliency"])
    again = explain(settings, DIGEST, patient, ["occlusion"])
    page = again.page.read_text()
    assert first.page == again.page
    assert stat.S_IMODE(again.page.stat().st_mode) == 0o600
    drawn = [base64.b64encode(again.picture.read_bytes()).decode()]
    assert re.findall(r'class="explained".*?base64,([^"]*)"', page, re.DOTALL) == drawn
    assert page.count(f"<strong>{patient}</strong> Why the model says") == 1
    assert page.endswith("</html>")


def test_another_study_or_method_is_told_with_those_that_there_are(site: Path) -> None:
    settings = trainer_at(site).site
    with pytest.raises(SettingsError, match=rf"names 0 studies.*give one of: {DIGEST[:16]}"):
        explain(settings, "0000", "p", [])
    with pytest.raises(SettingsError, match=r"attention_rollout does not fit this network.*lime"):
        explain(settings, DIGEST, patient_of(site), ["attention_rollout"])
    with pytest.raises(SettingsError, match=r"xray is not known"):
        explain(settings, DIGEST, patient_of(site), ["xray"])


class Blind(nn.Module):
    """Finds nothing, and thinks the second of its classes the likelier."""

    def forward(self, images: Tensor) -> Tensor:
        return torch.cat([images * 0 + 9, images * 0, images * 0 + 1], 1)


def test_of_a_mask_that_is_empty_it_is_said_that_nothing_was_found() -> None:
    classes = ("task.classes=[head,tail]", "task.label_values=[1,2]", "task.out_channels=3")
    study = study_from(*SLICES, *classes)
    assert _answer(Blind(), torch.zeros(1, 1, 16, 16), study) == (2, False)


class Sure(nn.Module):
    """Gives each label the logit that it was made with."""

    def __init__(self, *logits: float) -> None:
        super().__init__()
        self.logits = torch.tensor([logits])

    def forward(self, images: Tensor) -> Tensor:
        return self.logits.expand(len(images), -1)


@pytest.mark.parametrize(
    ("logits", "answer"), [((-1.0, 2.0), (1, True)), ((-1.0, -2.0), (0, False))]
)
def test_of_several_labels_none_may_be_the_answer(
    logits: tuple[float, ...], answer: tuple[int, bool]
) -> None:
    study = study_from("task=multilabel", "model=cnn", "data=pictures")
    assert _answer(Sure(*logits), torch.zeros(1, 1, 8, 8), study) == answer


class Half(nn.Module):
    """Sees the half of an image that is its left side alone."""

    def forward(self, images: Tensor) -> Tensor:
        left = images[:, :, : images.shape[2] // 2].mean((1, 2, 3))
        return torch.stack([torch.zeros_like(left), left], 1)


@pytest.mark.parametrize(("more", "answer"), [((), 0), (("task.mirrored=true",), 1)])
def test_what_is_explained_is_the_answer_that_the_study_gives(
    more: tuple[str, ...], answer: int
) -> None:
    image = torch.cat([torch.full((1, 1, 4, 8), -1.0), torch.full((1, 1, 4, 8), 3.0)], 2)
    assert _answer(Half(), image, study_from(*PICTURES, *more)) == (answer, True)
