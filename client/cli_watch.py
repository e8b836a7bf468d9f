"""The verb watch of wardround-site: do new patients still look like the old ones?

wardround-site watch --since 2026-06-01 experiment=retina
"""

from datetime import date, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

CHANGED = 3
LOG_WIDTH = 120
DEFAULT_SITE = Path("site.yaml")


def mount(app: typer.Typer) -> None:
    """Give the verb to the command of a hospital."""
    app.command("watch")(watch)


def watch(
    overrides: Annotated[
        list[str], typer.Argument(help="The study's settings, which say how images are prepared.")
    ],
    since: Annotated[
        datetime, typer.Option(formats=["%Y-%m-%d"], help="The first day of the new patients.")
    ],
    false_alarm_rate: Annotated[
        float,
        typer.Option(help="Chance of an alarm if nothing changed, over all new patients together."),
    ] = 0.01,
    site: Annotated[Path, typer.Option("--site", help="The site's settings.")] = DEFAULT_SITE,
) -> None:
    """Sound an alarm (exit code 3) if new patients' images look unlike those before a day."""
    # Imports torch, which the other verbs do without.
    from client.site import load_site
    from client.watch import Watched, watch_site

    found: Watched = watch_site(
        load_site(site).manifest_path, overrides, since.date(), false_alarm_rate
    )
    console = Console(width=LOG_WIDTH)
    watch, count = found.watch, len(found.patients)
    console.print(
        f"{found.before} patients before {since.date()}, {count} from then on; alarm above "
        f"{watch.threshold:.2f}, which {false_alarm_rate:.0%} of unchanged sites pass",
        highlight=False,
    )
    if watch.alarm is None:
        console.print(f"no change: the sum is {watch.sums_N.max():.2f} at most", highlight=False)
        return
    _tell(console, found.patients[watch.alarm], found.dates[watch.alarm], watch.alarm + 1)
    raise typer.Exit(CHANGED)


def _tell(console: Console, patient: str, day: date, number: int) -> None:
    console.print(
        f"CHANGE: from patient {patient} on ({day}, number {number} of the new ones) images look "
        "unlike the old. See whether a scanner or a protocol was changed, and try the model on "
        "some new patients before it is trusted there.",
        highlight=False,
        markup=False,
    )
