"""What a site writes down of what it told is what left, and no more."""

import json
from pathlib import Path

from client.told import FILE, told_of
from client.trainer import trainer_at
from common.config import study_digest
from tests.builders import (
    PICTURES,
    PRIVATE,
    initial_weights,
    pictures_site,
    request_for,
    study_from,
)

STUDY = (*PICTURES, *PRIVATE)


def test_every_answer_of_a_round_is_one_line_of_what_left(tmp_path: Path) -> None:
    trainer = trainer_at(pictures_site(tmp_path / "a", train=4, test=3))
    weights = initial_weights(*STUDY)
    trainer.describe(request_for(*STUDY))
    update = trainer.train(request_for(*STUDY, evaluate=True), weights).body
    found = trainer.evaluate(request_for(*STUDY, round_number=2), weights).body
    ((study, lines),) = told_of(trainer.site.state_path).items()
    assert study == study_digest(study_from(*STUDY))
    assert [(line["kind"], line["round"]) for line in lines] == [("update", 1), ("evaluation", 2)]
    for line, body in zip(lines, (update, found), strict=True):
        assert line["values"] == {name: of.value for name, of in body.estimates.items()}
    assert lines[0]["epsilon"] == update.privacy.epsilon
    assert set(lines[0]) == {
        *("time", "study", "round", "kind", "seconds", "values", "epsilon", "steps", "train_loss")
    }


def test_a_line_that_was_cut_is_left_out(tmp_path: Path) -> None:
    whole = json.dumps({"study": "ab", "round": 1})
    (tmp_path / FILE).write_text(f'{whole}\n[]\n{whole}\n{{"study": "a')
    assert told_of(tmp_path) == {"ab": [json.loads(whole)] * 2}
    assert told_of(tmp_path / "none") == {}
