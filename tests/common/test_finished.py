"""A finished study is what its files say, or it is refused."""

import json
from pathlib import Path

import pytest
import torch

from client.page import FOLDER
from client.trainer import trainer_at
from common.config import study_digest
from common.export.card import Said, card_of
from common.export.provenance import participants_of
from common.finished import MODEL, RESULT, load_finished
from common.schema import SettingsError
from common.tensor_files import read_tensors, write_tensors
from server.run import initial_network
from tests.builders import PICTURES, SLICES, initial_weights, pictures_site, request_for, study_from
from tests.finished import domain_at, finished_run

NULLS = ("training.grad_clip_norm=null", "evaluation=shift", "data.spacing_mm=[2,2]")


@pytest.mark.parametrize("overrides", [PICTURES, SLICES, (*SLICES, *NULLS)])
def test_the_study_of_a_run_folder_is_the_one_that_was_run(
    tmp_path: Path, overrides: tuple[str, ...]
) -> None:
    found = load_finished(finished_run(tmp_path, *overrides))
    assert found.study == study_from(*overrides)
    assert (found.digest, found.rounds) == (study_digest(found.study), 2)
    images = torch.zeros(1, 1, 16, 16)
    expected = initial_network(found.study).eval()(images)
    assert torch.equal(found.network(images), expected)
    assert found.domain is None


def test_a_run_that_tells_how_its_images_look_has_a_domain(tmp_path: Path) -> None:
    told = domain_at(0.25)
    found = load_finished(finished_run(tmp_path, *PICTURES, domain=told)).domain
    assert found is not None
    assert found.told() == told.told()


def test_a_model_that_a_site_kept_is_a_finished_study_too(tmp_path: Path) -> None:
    yaml = pictures_site(tmp_path / "a")
    trainer = trainer_at(yaml)
    request = request_for(*PICTURES, round_number=2, evaluate=True)
    trainer.evaluate(request, initial_weights(*PICTURES))
    (kept,) = (trainer.site.state_path / FOLDER).glob("*.safetensors")
    found = load_finished(kept)
    assert (found.study, found.result) == (study_from(*PICTURES), None)


def test_settings_that_were_changed_afterwards_are_refused(tmp_path: Path) -> None:
    folder = finished_run(tmp_path, *PICTURES)
    result = json.loads((folder / RESULT).read_text())
    result["study"]["data"]["normalise"] = "minmax"
    (folder / RESULT).write_text(json.dumps(result))
    with pytest.raises(SettingsError, match="it was changed, or made by another version"):
        load_finished(folder)


def test_weights_of_another_study_are_refused(tmp_path: Path) -> None:
    folder = finished_run(tmp_path / "a", *PICTURES)
    other = finished_run(tmp_path / "b", *PICTURES, "seed=5")
    (folder / MODEL).write_bytes((other / MODEL).read_bytes())
    with pytest.raises(SettingsError, match="put the files of one run together"):
        load_finished(folder)


def test_a_model_whose_layers_each_site_keeps_is_refused_in_words(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"lacks 2 tensors .*each site keeps them"):
        load_finished(finished_run(tmp_path, *PICTURES, "model.local=[head]"))


def test_weights_of_another_shape_are_refused(tmp_path: Path) -> None:
    folder = finished_run(tmp_path, *PICTURES)
    state, about = read_tensors(folder / MODEL)
    write_tensors(folder / MODEL, {n: t[..., :1].contiguous() for n, t in state.items()}, about)
    with pytest.raises(SettingsError, match="does not fit the study's network cnn: size mismatch"):
        load_finished(folder)


@pytest.mark.parametrize("content", [b"", b"garbage", b"\x10\0\0\0\0\0\0\0{}"])
def test_what_is_no_weights_is_told_in_one_sentence(tmp_path: Path, content: bytes) -> None:
    folder = finished_run(tmp_path, *PICTURES)
    (folder / MODEL).write_bytes(content)
    with pytest.raises(SettingsError, match="cannot be read as weights"):
        load_finished(folder)


def test_a_folder_without_a_model_or_a_result_says_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"model\.safetensors is missing"):
        load_finished(tmp_path)
    folder = finished_run(tmp_path, *PICTURES)
    (folder / RESULT).unlink()
    with pytest.raises(SettingsError, match=r"holds no result\.json"):
        load_finished(folder)


def test_what_the_run_measured_is_not_told_of_another_of_its_models(tmp_path: Path) -> None:
    rounds = [{"round": 1, "participants": ["a"]}, {"round": 2, "participants": ["a", "b"]}]
    final = {"mean": {"auroc": 0.9}, "sites": {"a": {}}}
    folder = finished_run(
        tmp_path, *PICTURES, domain=domain_at(0.25), rounds=rounds, final=final, metrics={}
    )
    state, about = read_tensors(folder / MODEL)
    assert isinstance(about, dict)
    write_tensors(folder / "best.safetensors", state, {**about, "rounds": 1})
    last, best = load_finished(folder), load_finished(folder / "best.safetensors")
    assert last.domain is not None
    assert best.domain is None
    assert (participants_of(last), participants_of(best)) == (["a", "b"], ["a"])
    assert card_of(last, Said())["results"]["mean"] == {"auroc": 0.9}
    card = card_of(best, Said())
    assert card["results"] is None
    assert "how well this one does is not known" in " ".join(card["known_failures"])


def test_weights_that_do_not_tell_their_study_are_refused(tmp_path: Path) -> None:
    folder = finished_run(tmp_path, *PICTURES)
    write_tensors(folder / MODEL, read_tensors(folder / MODEL)[0])
    with pytest.raises(SettingsError, match="does not tell which study it is of"):
        load_finished(folder)


def test_the_answers_are_as_sure_as_the_runs_temperature_says(tmp_path: Path) -> None:
    asked = (*PICTURES, "task.temperatures=[1,2.5]")
    folder = finished_run(tmp_path, *asked, temperature={"value": 2.5, "nll": {}})
    state, about = read_tensors(folder / MODEL)
    write_tensors(folder / "best.safetensors", state, about if isinstance(about, dict) else {})
    logits = torch.tensor([[0.0, 5.0]])
    last, best = load_finished(folder), load_finished(folder / "best.safetensors")
    assert torch.equal(last.task.activate(logits), (logits / 2.5).softmax(1))
    # The temperature was found with the last model.
    assert torch.equal(best.task.activate(logits), logits.softmax(1))
    assert last.digest == best.digest


def test_an_ensemble_is_measured_and_not_used(tmp_path: Path) -> None:
    folder = finished_run(tmp_path / "run", *PICTURES, "model.members=2")
    with pytest.raises(SettingsError, match="an ensemble of 2 networks of single sites"):
        load_finished(folder)
