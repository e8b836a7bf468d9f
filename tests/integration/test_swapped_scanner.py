"""A study in which one hospital's scanner is replaced between two rounds."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

from flwr.app import Context, Message
from flwr.clientapp import ClientApp
from rich.console import Console

from client.app import app as hospital_app
from common.config import travelling
from common.files import read_json
from common.messages import unpack_request
from server.events import EVENTS
from server.progress import Progress
from server.run import RESULT
from simulation.config import named_scanner
from simulation.engines.run import run_engine
from simulation.hospitals import write_hospital
from simulation.run import composed, make_hospitals
from simulation.sites import DATA

ROUNDS, SWAPPED_AT = 4, 3
STUDY = (
    "experiment=smoke",
    "privacy=none",
    f"rounds={ROUNDS}",
    "evaluation=shift",
    "evaluation.own_model=false",
    "evaluation.personal_rounds=0",
    "evaluation.profile_every=1",
    "simulation.engine=inprocess",
)


class Swapping(ClientApp):
    """The hospitals' own app; before a round a hospital's files make room for others."""

    def __init__(self, swap: dict[int, tuple[Path, Path]]) -> None:
        """swap: by round, the hospital's folder, and one of the same names with other files."""
        super().__init__()
        self._swap = swap

    def __call__(self, message: Message, context: Context) -> Message:
        """Answer as the hospitals do."""
        old, new = self._swap.pop(unpack_request(message.content).round, (None, None))
        if old is not None and new is not None:
            for file in sorted(new.glob("*/*.nii")):
                shutil.copy(file, old / file.relative_to(new))
        return hospital_app(message, context)


def test_a_scanner_replaced_between_rounds_is_noticed_at_its_hospital_and_at_no_other(
    tmp_path: Path,
) -> None:
    run = composed(tmp_path / "run", STUDY)
    # Not those that tests share: this one changes their files.
    make_hospitals(run, Progress(Console(quiet=True)))
    hospitals = {hospital.name: hospital for hospital in run.settings.virtual_hospitals()}
    other = replace(hospitals["south"], scanner=named_scanner("flair_3t"))
    write_hospital(tmp_path / "other", other, run.study.seed)
    swap = {SWAPPED_AT: (run.folder / DATA / "south", tmp_path / "other")}
    app = Swapping(swap)
    run_engine(run.folder, travelling(run.overrides), sorted(hospitals), run.settings, app)
    assert not swap

    result = read_json(run.folder / RESULT)
    assert result["status"] == "completed", result["reason"]
    alarm = result["shift"]["alarm"]
    assert alarm["false_alarm_rate"] == 0.01
    assert {site: of["round"] for site, of in alarm["sites"].items()} == {
        "north": None,
        "south": SWAPPED_AT,
    }
    far = alarm["sites"]["south"]["distance_after"]
    assert far["2"] == 0 < far["3"] == far["4"]
    events = [json.loads(line) for line in (run.folder / EVENTS).read_text().splitlines()]
    told = [of for of in events if of["event"] == "changed"]
    assert [(of["site"], of["round"], of["since"]) for of in told] == [("south", SWAPPED_AT, 1)]
