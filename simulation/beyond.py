"""The table of what goes beyond segmenting and classifying: what each part must reach, and does.

Each row has runs of its own below the folder; a run that is done is not done again, and what was
measured stands in a file from which the table goes on, here or elsewhere.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter
from rich.console import Console
from rich.table import Table

from common.files import read_json, write_pieces
from common.models.start import FOLDER
from common.schema import SettingsError
from server.run import MODEL
from server.showing import BASELINES
from simulation.beyond_config import MeasuredRow
from simulation.compress import FILE as COMPRESSED
from simulation.compress import compress
from simulation.outcomes import key_of
from simulation.run import Simulation, composed
from simulation.show import carried_out
from simulation.uncertainty import FILE as UNSURE
from simulation.uncertainty import show_uncertainty

COMPLETED = "completed"
ENSEMBLE = "ensemble of the sites"
ONE_PROCESS = ("simulation.engine=inprocess",)
PRIVATE = ("privacy=patient_eps8",)
START, WEIGHTS = "begun.safetensors", "weights"
LEAST_GAIN = 0.001
"""Of one study on another: two that learned nothing at all gain nothing on each other."""


@dataclass(frozen=True, kw_only=True)
class Measure:
    """One figure, and what it must reach."""

    row: str
    key: str
    """SHA-256 of all that it hangs on (row_key)."""
    name: str
    value: float
    least: float
    """What it must reach; every figure is better when it is larger."""
    more: str
    """What it was made of, for people."""

    @property
    def reached(self) -> bool:
        """Whether it is so."""
        return self.value >= self.least


_MEASURE = TypeAdapter(Measure)
Found = Sequence[tuple[str, float, float, str]]
"""Name, value, least and more of each measure."""


def run_beyond(folder: Path, run: Simulation, console: Console) -> str:
    """Measure what is not measured yet, print the table, write it; return the status.

    Raises:
        SettingsError: the settings of a run do not fit together, or a run of a row failed.
    """
    config = run.settings.beyond_config()
    folder = folder.resolve()
    file = folder / f"{run.study.name}.rows.jsonl"
    known = _read(file) if file.is_file() else {}
    known |= {} if config.known is None else _read(Path(config.known))
    rows = config.measured_rows()
    common = [*_common(run.overrides), *ONE_PROCESS]
    found: dict[str, list[Measure]] = {}
    for name, row in rows.items():
        if row is None:
            continue
        key = row_key(row, folder / name, common)
        if key not in known:
            console.print(f"{name}: {row.kind} of {row.experiment}", highlight=False)
            each = MEASURES[row.kind](row, folder / name, common)
            known[key] = [
                Measure(row=name, key=key, name=what, value=value, least=least, more=more)
                for what, value, least, more in each
            ]
            _write(file, known)
        found[name] = known[key]
    console.print(table_of(run.study.name, rows, found))
    console.print(f"result  {file}", highlight=False, soft_wrap=True)
    return COMPLETED


def restoration(row: MeasuredRow, folder: Path, common: Sequence[str]) -> Found:
    """Return how far the federation is above the best classical way back, and below pooled data."""
    result = _result(folder / "pooled", [*_settings(row), *common], with_baselines=True)
    plain = result["final"]["mean"]["psnr"]
    pooled = result["baselines"][BASELINES[0]]["mean"]["psnr"]
    told = f"pooled {pooled:.2f} dB"
    if row.federated:
        told += f", federated by the same settings {plain:.2f} dB"
        result = _result(folder / "federated", [*_settings(row), *row.federated, *common])
    gain, psnr = (result["final"]["mean"][name] for name in ("psnr_gain", "psnr"))
    told = f"PSNR {psnr:.2f} dB, {told}"
    return [
        ("dB above the best classical way back", gain, 2.0, told),
        ("dB above pooled", psnr - pooled, -0.3, told),
    ]


def survival(row: MeasuredRow, folder: Path, common: Sequence[str]) -> Found:
    """Return how far the model's C-index is above that of the true risks."""
    start = _start(row, folder, common) if row.first else []
    with _weights_in(folder / WEIGHTS):
        result = _result(folder / "begun", [*_settings(row), *common, *start])
    mean = result["final"]["mean"]
    model, truth = mean["c_index"], mean["c_index_truth"]
    told = f"C-index {model:.3f}, of the truth {truth:.3f}"
    return [("C-index above the truth's", model - truth, -0.02, told)]


def small(row: MeasuredRow, folder: Path, common: Sequence[str]) -> Found:
    """Return how much faster int8 is, and what it costs."""
    _result(folder, [*_settings(row), *common])
    with _quiet() as console:
        compress(folder, row.student, console)
    rows = read_json(folder / COMPRESSED)["rows"]
    whole, int8 = rows[:2]
    faster = whole["milliseconds"] / int8["milliseconds"]
    told = "; ".join(
        f"{form['form']}: {form['milliseconds']:.1f} ms, {form['kilobytes']:.0f} kB, "
        f"{form['headline']:.3f}"
        for form in rows
    )
    return [
        ("times as fast in int8", faster, 1.8, told),
        ("headline above float32", int8["headline"] - whole["headline"], -0.01, told),
    ]


def unsure(row: MeasuredRow, folder: Path, common: Sequence[str]) -> Found:
    """Return by which share the ensemble's risk falls where it answers the surest 80 % alone."""
    _result(folder, [*_settings(row), *common])
    with _quiet() as console:
        show_uncertainty(folder, console)
    rows = {each["way"]: each for each in read_json(folder / UNSURE)["rows"]}
    of = rows[ENSEMBLE]
    less = 1 - of["risk_at_80"] / of["risk"] if of["risk"] else 0.0
    told = f"risk {of['risk']:.3f}, at 80 % coverage {of['risk_at_80']:.3f}"
    return [("share of the risk that 80 % coverage saves", less, 1 / 3, told)]


def pretraining(row: MeasuredRow, folder: Path, common: Sequence[str]) -> Found:
    """Return what few labels reach with a pre-trained start, and with the unlabelled patients.

    The start is held against twice as many labels without it, the others against doing without.
    """
    common = [*common, *(PRIVATE if row.private else [])]
    start = _start(row, folder, common)
    share = float(row.labels or 0.0)
    runs = {"begun": (share, start), "few": (share, []), "twice": (2 * share, [])}
    if row.rest:
        runs["rest"] = (share, row.rest)
    reached = {}
    with _weights_in(folder / WEIGHTS):
        for name, (labels, more) in runs.items():
            overrides = [*_settings(row), f"data.train_share={labels:g}", *more, *common]
            result = _result(folder / name, overrides)
            reached[name] = result["final"]["mean"][result["headline"]]
    told = (
        f"{share:.0%} of the labels: {reached['few']:.3f}, with the start {reached['begun']:.3f}; "
        f"{2 * share:.0%}: {reached['twice']:.3f}"
    )
    gain = reached["begun"] - reached["twice"]
    found = [("start, above twice the labels", gain, LEAST_GAIN, told)]
    if row.rest:
        told = (
            f"{share:.0%} of the labels: {reached['few']:.3f}, with the rest {reached['rest']:.3f}"
        )
        gain = reached["rest"] - reached["few"]
        found.append(("unlabelled rest, above without it", gain, LEAST_GAIN, told))
    return found


MEASURES: Mapping[str, Callable[[MeasuredRow, Path, Sequence[str]], Found]] = {
    "restoration": restoration,
    "survival": survival,
    "pretraining": pretraining,
    "compress": small,
    "uncertainty": unsure,
}


def table_of(
    title: str, rows: Mapping[str, MeasuredRow | None], found: Mapping[str, Sequence[Measure]]
) -> Table:
    """Return the measures as a table; rows that were left out are told as such."""
    table = Table(title=title)
    for column in ("row", "measure", "reached", "must reach", "", "made of"):
        table.add_column(column, no_wrap=column == "row")
    for name in rows:
        for number, measure in enumerate(found.get(name, [])):
            table.add_row(
                name if number == 0 else "",
                measure.name,
                f"{measure.value:.3f}",
                f"{measure.least:.3f}",
                "yes" if measure.reached else "no",
                measure.more,
            )
        if name not in found:
            table.add_row(name, "not run", "-", "-", "-", "")
    return table


def _start(row: MeasuredRow, folder: Path, common: Sequence[str]) -> list[str]:
    """Run the study that comes first, and return how another begins with its model."""
    _result(folder / "first", [*row.first, *common])
    weights = folder / WEIGHTS
    weights.mkdir(exist_ok=True)
    shutil.copyfile(folder / "first" / MODEL, weights / START)
    digest = hashlib.sha256((weights / START).read_bytes()).hexdigest()
    return [f"model.start={{file: {START}, sha256: {digest}}}"]


def _settings(row: MeasuredRow) -> list[str]:
    return [f"experiment={row.experiment}", *row.settings]


def _common(overrides: Sequence[str]) -> list[str]:
    """Return what of the command's overrides holds for each run."""
    own = ("experiment=", "simulation.beyond")
    return [override for override in overrides if not override.startswith(own)]


def _result(folder: Path, overrides: Sequence[str], with_baselines: bool = False) -> dict[str, Any]:
    with _quiet() as console:
        result = carried_out(composed(folder, overrides), with_baselines, console)
    if result["status"] != COMPLETED:
        raise SettingsError(
            f"the run in {folder} ended as {result['status']} ({result['reason']}); mend it, and "
            "the same command goes on"
        )
    return result


@contextmanager
def _quiet() -> Iterator[Console]:
    with open(os.devnull, "w") as nowhere:
        yield Console(file=nowhere)


@contextmanager
def _weights_in(folder: Path) -> Iterator[None]:
    before = os.environ.get(FOLDER)
    os.environ[FOLDER] = str(folder)
    try:
        yield
    finally:
        if before is None:
            del os.environ[FOLDER]
        else:
            os.environ[FOLDER] = before


def row_key(row: MeasuredRow, folder: Path, common: Sequence[str]) -> str:
    """Return the SHA-256 of what decides a row: its studies as composed, and what it asks of them.

    Raises:
        SettingsError: the settings of a study do not fit together; or as key_of.
    """
    more = [own for own in (row.rest, row.student, row.federated) if own]
    asked = [[*_settings(row), *own, *common] for own in ([], *more)]
    if row.first:
        asked.insert(1, [*row.first, *common])
    private = PRIVATE if row.private else ()
    studies = [
        key_of(composed(folder, [*overrides, *private]), row.kind == "restoration")
        for overrides in asked
    ]
    # Settings of the row are in its studies; what is left says what is measured of them.
    about = [version("wardround"), row.kind, row.labels, studies]
    return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()


def _read(path: Path) -> dict[str, list[Measure]]:
    if not path.is_file():
        raise SettingsError(f"simulation.beyond.known={path} is no file; give a *.rows.jsonl")
    known: dict[str, list[Measure]] = {}
    for number, line in enumerate(path.read_text().splitlines(), 1):
        try:
            measure = _MEASURE.validate_json(line)
        except ValueError as error:
            raise SettingsError(
                f"{path}: line {number} is no measure ({error}); delete it: its row is run again"
            ) from error
        known.setdefault(measure.key, []).append(measure)
    return known


def _write(path: Path, known: Mapping[str, Sequence[Measure]]) -> None:
    lines = (json.dumps(asdict(measure)) for each in known.values() for measure in each)
    write_pieces(path, (f"{line}\n".encode() for line in lines))
