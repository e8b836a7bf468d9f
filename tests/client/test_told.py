"""What a site writes down of what it told is what left, and no more."""

import json
import stat
from dataclasses import asdict
from pathlib import Path

from client.log import LOG
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
    about = trainer.describe(request_for(*STUDY)).body
    update = trainer.train(request_for(*STUDY, evaluate=True), weights).body
    found = trainer.evaluate(request_for(*STUDY, round_number=2), weights).body
    ((study, lines),) = told_of(trainer.site.state_path).items()
    assert study == study_digest(study_from(*STUDY))
    assert [line["kind"] for line in lines] == ["description", "update", "evaluation"]
    for line, body in zip(lines, (about, update, found), strict=True):
        own = {key: value for key, value in line.items() if key not in ("time", "study", "kind")}
        assert own == json.loads(json.dumps(asdict(body)))
    assert stat.S_IMODE((trainer.site.state_path / FILE).stat().st_mode) == 0o600


def test_an_update_that_was_paid_for_leaves_where_no_line_can_be_written(tmp_path: Path) -> None:
    path = pictures_site(tmp_path / "a", train=4, test=3)
    trainer = trainer_at(path)
    (trainer.site.state_path / FILE).mkdir(parents=True)
    weights = initial_weights(*STUDY)
    assert trainer.train(request_for(*STUDY), weights).weights is not None
    assert trainer.evaluate(request_for(*STUDY), weights).body.estimates
    assert "what was told is not written down" in (path.parent / LOG).read_text()


def test_a_line_that_was_cut_is_left_out(tmp_path: Path) -> None:
    whole = json.dumps({"study": "ab", "round": 1})
    (tmp_path / FILE).write_text(f'{whole}\n[]\n{whole}\n{{"study": "a')
    assert told_of(tmp_path) == {"ab": [json.loads(whole)] * 2}
    assert told_of(tmp_path / "none") == {}
