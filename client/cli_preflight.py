"""The verb preflight of wardround-site: is this data fit to take part?

wardround-site preflight --root DIR
wardround-site preflight --site SITE.yaml experiment=retina
wardround-site preflight --site SITE.yaml --study 3f2a91c0
"""

import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table

from client.approval import FEWEST_DIGITS, Approvals
from client.enrolment import state_folder
from common.system_errors import check_writable

if TYPE_CHECKING:
    from client.manifest import Row
    from client.preflight.cost import Cost
    from client.preflight.facts import Facts
    from client.preflight.report import Report

NO_GO_CODE = 3
LOG_WIDTH = 120
CARDS = "cards"
SHOWN = 3
"""Places of a finding that the table names; the card has all."""
LONGEST = 240
"""Letters of a finding that the table shows; the card has all."""


def mount(app: typer.Typer) -> None:
    """Give the verb to the command of a hospital."""
    app.command("preflight")(preflight)


def preflight(
    overrides: Annotated[
        list[str] | None,
        typer.Argument(help="A study's settings: does the data fit, what does a round take?"),
    ] = None,
    root: Annotated[
        Path | None, typer.Option("--root", help="A folder of images, or a manifest.")
    ] = None,
    site: Annotated[
        Path | None, typer.Option("--site", help="The site's settings; its manifest is read.")
    ] = None,
    card: Annotated[
        Path | None,
        typer.Option("--card", help="Folder for the data card; cards/ in the site's state folder."),
    ] = None,
    study: Annotated[
        str | None,
        typer.Option(metavar="HASH", help="Or a study that was proposed here, by its hash."),
    ] = None,
    mapping: Annotated[
        Path | None,
        typer.Option("--mapping", help="A mapping file; its mask says which of several masks."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Read all of the data and say go (exit code 0) or no-go (3), and why. Nothing leaves."""
    # These import torch, which the other verbs do without.
    from client.mapping import Names, load_names
    from client.preflight.card import as_json as json_of
    from client.preflight.card import write_card
    from client.preflight.report import NO_GO
    from client.preflight.report import preflight as read
    from client.site import load_site

    if (root is None) == (site is None):
        raise ValueError("give --root DIR or --site SITE.yaml: one of the two says what to read")
    own = None if site is None else load_site(site)
    data = root if own is None else own.manifest_path
    assert data is not None
    device = "cpu" if own is None else own.device
    if study is not None:
        overrides = _proposed(study, site)
    check, cost = _for_study(overrides, device)
    if own is not None and card is None:
        card = own.state_path / CARDS
    pattern = (load_names(mapping) if mapping else Names()).mask
    if card is not None:
        check_writable(card)
    report = read(data, each=_watched, cost_of=cost, mask_pattern=pattern, check=check)
    page = (
        None if card is None else write_card(card, str(data) if own is None else own.name, report)
    )
    if as_json:
        sys.stdout.write(json_of(report) + "\n")
    else:
        _show(report, page)
    if report.verdict == NO_GO:
        raise typer.Exit(NO_GO_CODE)


def _watched(rows: "Sequence[Row]") -> "Iterable[Row]":
    console = Console(stderr=True)
    return track(rows, "reading", console=console, disable=not console.is_terminal, transient=True)


def _proposed(study: str, site: Path | None) -> list[str]:
    """Return the settings of a study that was proposed to a site."""
    if site is None:
        raise ValueError("--study is looked up at a site; give --site SITE.yaml")
    known = Approvals(state_folder(site)).all()
    found = [one for one in known if one.digest.startswith(study) and one.overrides]
    if len(found) != 1:
        there = ", ".join(one.digest[:FEWEST_DIGITS] for one in known) or "none"
        raise ValueError(
            f"--study {study} is {len(found)} of the studies that were proposed here ({there}); "
            "give more digits, or the study's settings"
        )
    return list(found[0].overrides)


def _for_study(
    overrides: Sequence[str] | None, device: str
) -> "tuple[Callable[[Row], object] | None, Callable[[Sequence[Facts]], Cost | None] | None]":
    """Return what checks a row for a study, and what tells the study's cost; None without one."""
    if not overrides:
        return None, None
    from client.cases import read_case
    from client.device import usable_device
    from client.preflight.cost import cost_of
    from common.config import load_study

    here = usable_device(device)
    study = load_study(list(overrides))
    return (
        lambda row: read_case(row, study.data, study.task),
        lambda facts: cost_of(study, facts, here),
    )


def _show(report: "Report", page: Path | None) -> None:
    from client.preflight.card import lines_of

    console = Console()
    console = console if console.is_terminal else Console(width=LOG_WIDTH)
    table = Table(title=f"preflight of {report.root}", show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for name, words in lines_of(report):
        table.add_row(name, words)
    console.print(table, markup=False)
    if report.findings:
        console.print(_findings(report))
    console.print(f"{report.verdict}", style="bold", highlight=False)
    if page is not None:
        console.print(f"data card  {page}", highlight=False, soft_wrap=True)


def _findings(report: "Report") -> Table:
    from rich.text import Text

    table = Table("level", "kind", title="what was found")
    for name in ("what", "where"):
        table.add_column(name, overflow="fold")
    for finding in report.findings:
        shown = list(finding.at[:SHOWN])
        if len(finding.at) > SHOWN:
            shown.append(f"and {len(finding.at) - SHOWN} more")
        words = finding.text if len(finding.text) <= LONGEST else f"{finding.text[:LONGEST]} ..."
        cells = (finding.level, finding.kind, words, ", ".join(shown))
        table.add_row(*(Text(cell) for cell in cells))
    return table
