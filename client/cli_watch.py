"""The verb watch of wardround-site: are new patients like the old ones, to the eye and the model?

wardround-site watch --since 2026-06-01 experiment=retina
wardround-site watch --since 2026-06-01 --model state/pages/DIGEST.safetensors
"""

from datetime import date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

if TYPE_CHECKING:
    from client.deployed import Figure
    from client.watch import Watched
    from common.contract import Estimate

CHANGED = 3
LOG_WIDTH = 120
DEFAULT_SITE = Path("site.yaml")


def mount(app: typer.Typer) -> None:
    """Give the verb to the command of a hospital."""
    app.command("watch")(watch)


def watch(
    since: Annotated[
        datetime, typer.Option(formats=["%Y-%m-%d"], help="The first day of the new patients.")
    ],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(help="The study's settings, which say how images are prepared."),
    ] = None,
    model: Annotated[
        Path | None,
        typer.Option(
            metavar="RUN",
            help="In place of the settings a finished study's run folder, or the model that the "
            "site kept; new patients with labels are then tried on it.",
        ),
    ] = None,
    false_alarm_rate: Annotated[
        float,
        typer.Option(help="Chance of an alarm if nothing changed, over all new patients together."),
    ] = 0.01,
    site: Annotated[Path, typer.Option("--site", help="The site's settings.")] = DEFAULT_SITE,
) -> None:
    """Sound an alarm (exit code 3) if patients from a day on look unlike others, or fare worse."""
    # Imports torch, which the other verbs do without.
    from client.deployed import figures_since
    from client.resident import composed
    from client.site import load_site
    from client.site_data import rows_at
    from client.watch import watch_site
    from common.finished import load_finished

    if (model is None) == (not overrides):
        raise ValueError(
            "watch needs to know the study: give its settings (experiment=...) or --model, and "
            "not both"
        )
    finished = load_finished(model) if model is not None else None
    study = composed(tuple(overrides or ())) if finished is None else finished.study
    rows, day = rows_at(load_site(site).manifest_path), since.date()
    found = watch_site(rows, study, day, false_alarm_rate)
    console = Console(width=LOG_WIDTH)
    alarms = [_tell_looks(console, found, day, false_alarm_rate)]
    if finished is not None:
        alarms.append(_tell_figures(console, figures_since(rows, finished, day), day))
    if any(alarms):
        raise typer.Exit(CHANGED)


def _tell_looks(console: Console, found: "Watched", since: date, rate: float) -> bool:
    watch, count = found.watch, len(found.patients)
    console.print(
        f"{found.before} patients before {since}, {count} from then on; alarm above "
        f"{watch.threshold:.2f}, which {rate:.0%} of unchanged sites pass",
        highlight=False,
    )
    if watch.alarm is None:
        console.print(f"no change: the sum is {watch.sums_N.max():.2f} at most", highlight=False)
        return False
    _tell(console, found.patients[watch.alarm], found.dates[watch.alarm], watch.alarm + 1)
    return True


def _tell_figures(console: Console, figures: "list[Figure]", since: date) -> bool:
    if not figures:
        console.print(f"no patient from {since} on has a label to try the model on")
    for of in figures:
        console.print(
            f"{of.name}: {_estimate(of.after)} on {of.after.n} patients with labels from {since} "
            f"on, {_estimate(of.before)} on {of.before.n} held-out ones before; the change is "
            f"{_estimate(of.change)}",
            highlight=False,
        )
        if of.worse:
            console.print(
                f"WORSE: the {of.name} is worse by more than chance (95 % interval). Do not trust "
                "the model on such patients before it is known why.",
                highlight=False,
            )
    return any(of.worse for of in figures)


def _estimate(of: "Estimate") -> str:
    if of.value is None:
        return "not defined"
    span = "" if of.low is None or of.high is None else f" ({of.low:.3f} to {of.high:.3f})"
    return f"{of.value:.3f}{span}"


def _tell(console: Console, patient: str, day: date, number: int) -> None:
    console.print(
        f"CHANGE: from patient {patient} on ({day}, number {number} of the new ones) images look "
        "unlike the old. See whether a scanner or a protocol was changed, and try the model on "
        "some new patients before it is trusted there.",
        highlight=False,
        markup=False,
    )
