"""wardround-site: the command of a hospital.

wardround-site ledger show                  what this site's patients have spent
wardround-site ledger verify                is the ledger whole?
wardround-site ledger verify --export FILE  is this export genuine?
wardround-site ledger export FILE           signed JSON for the ethics board
"""

import math
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from client import (
    cli_daemon,
    cli_enrolment,
    cli_expected,
    cli_explain,
    cli_export,
    cli_intake,
    cli_pacs,
    cli_page,
    cli_predict,
    cli_preflight,
    cli_review,
    cli_studies,
    cli_trainer,
    cli_watch,
)
from client.privacy.ledger import (
    Ledger,
    LedgerError,
    epsilon_of_charges,
    epsilons_of_charges,
    ledgers_in,
)
from client.privacy.ledger_export import (
    charge_rows,
    check_continues,
    default_delta,
    export_of,
    read_export,
    studies_of,
)
from client.privacy.ledger_rows import Chain, Charge
from common.command import run_command, tell_error
from common.files import write_json

FAILED = 1
LOG_WIDTH = 120
STUDY_DIGITS = 12
LIFE = "for life"

app = typer.Typer(
    no_args_is_help=True,
    add_completion=True,
    # A pretty traceback shows local variables, and so the ledger's secrets.
    pretty_exceptions_enable=False,
    help="The command of a hospital.",
)
ledger_app = typer.Typer(no_args_is_help=True, help="What this site's patients have spent.")
app.add_typer(ledger_app, name="ledger")
cli_daemon.mount(app)
cli_enrolment.mount(app)
cli_studies.mount(app)
cli_trainer.mount(app)
cli_watch.mount(app)
cli_expected.mount(app)
cli_explain.mount(app)
cli_preflight.mount(app)
cli_intake.mount(app)
cli_pacs.mount(app)
cli_predict.mount(app)
cli_export.mount(app)
cli_review.mount(app)
cli_page.mount(app)

SiteOption = Annotated[
    Path | None, typer.Option("--site", help="The site's settings; ./site.yaml if nothing is said.")
]
FileOption = Annotated[Path | None, typer.Option("--file", help="One ledger, instead of a site's.")]
DeltaOption = Annotated[
    float | None, typer.Option("--delta", help="Delta of epsilon; 1 / (2 x patients) by default.")
]


@app.callback()
def _site() -> None:
    """Keep `ledger` a word of the command, also while it is the only one."""


@ledger_app.command()
def show(site: SiteOption = None, file: FileOption = None, delta: DeltaOption = None) -> None:
    """Show every charge, and the totals of each study and for life."""
    console = _console()
    for ledger in _ledgers(site, file):
        chain = ledger.chain()
        at = _delta_of(chain, delta)
        console.print(
            f"[bold]{escape(str(ledger.path))}[/]\ndata set {chain.fingerprint[:16]}, "
            f"{len(chain.patients)} patients, {len(chain.rows)} rows, delta {at:.3g}",
            highlight=False,
        )
        console.print(_charges_table(chain, at))
        console.print(_totals_table(chain, at))


@ledger_app.command()
def verify(
    site: SiteOption = None,
    file: FileOption = None,
    export: Annotated[
        Path | None, typer.Option("--export", help="An export, instead of or beside a ledger.")
    ] = None,
) -> None:
    """Say whether the ledger is whole, or what is broken; the exit code is 0 or 1.

    With --export alone: whether its signature and its chain hold. With --file or --site too: also
    whether the ledger goes on from it.
    """
    console = _console()
    try:
        ledgers = [] if export and site is None and file is None else _ledgers(site, file)
        chains = {ledger.path: ledger.chain() for ledger in ledgers}
        for path, chain in chains.items():
            console.print(
                f"whole: {path}, {len(chain.rows)} rows, head {chain.newest.hash}",
                highlight=False,
                markup=False,
                soft_wrap=True,
            )
        if export:
            _verify_export(console, export, chains)
    except LedgerError as error:
        tell_error(error)
        raise typer.Exit(FAILED) from error


@ledger_app.command()
def export(
    target: Annotated[Path, typer.Argument(metavar="FILE", help="The JSON file to write.")],
    site: SiteOption = None,
    file: FileOption = None,
    delta: DeltaOption = None,
) -> None:
    """Write a ledger as signed JSON, without anything about a single patient."""
    ledgers = _ledgers(site, file)
    if len(ledgers) > 1:
        names = ", ".join(str(ledger.path) for ledger in ledgers)
        raise LedgerError(f"this site has {len(ledgers)} ledgers; choose one with --file: {names}")
    body = export_of(ledgers[0], _delta_of(ledgers[0].chain(), delta))
    try:
        write_json(target, body)
    except OSError as error:
        raise LedgerError(f"{target}: cannot be written ({error}); choose another file") from error
    _console().print(
        f"written: {target}, head {body['head']['hash']}, signed by {body['public_key']}",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )


def main() -> None:
    """Run the command line; bad input is told in one line and ends with 2."""
    run_command(app)


def _ledgers(site: Path | None, file: Path | None) -> list[Ledger]:
    """Return the ledger of --file, or all of the site's."""
    if site is not None and file is not None:
        raise ValueError("--site and --file name two things to look at; give one of them")
    if file is not None:
        if not file.is_file():
            raise ValueError(f"{file}: there is no such ledger; correct the path")
        return [Ledger(file)]
    # Imports torch, which a look at one file does without.
    from client.site import load_site

    folder = load_site(site or Path("site.yaml")).ledgers_path
    ledgers = ledgers_in(folder)
    if not ledgers:
        raise ValueError(f"{folder} holds no ledger; this site has not yet trained with privacy")
    return ledgers


def _delta_of(chain: Chain, delta: float | None) -> float:
    patients = len(chain.patients)
    if delta is None:
        return default_delta(chain)
    if not 0 < delta <= 1 / patients:
        raise ValueError(
            f"delta={delta} is not allowed; give a value above 0 and at most 1 / {patients} "
            "patients: with more, one patient's data could leave in clear"
        )
    return delta


def _charges_table(chain: Chain, delta: float) -> Table:
    table = Table("time (UTC)", "study", "purpose")
    for name in ("noise multiplier", "sample rate", "steps", "epsilon so far"):
        table.add_column(name, justify="right")
    before: list[Charge] = []
    for time, charge in charge_rows(chain):
        before.append(charge)
        table.add_row(
            time[:19].replace("T", " "),
            escape(charge.study[:STUDY_DIGITS]),
            charge.purpose,
            f"{charge.noise_multiplier:.4g}",
            f"{charge.sample_rate:.4g}",
            str(charge.steps),
            _told(epsilon_of_charges(before, delta)),
        )
    return table


def _told(epsilon: float) -> str:
    return f"{epsilon:.3f}" if math.isfinite(epsilon) else "infinite"


def _totals_table(chain: Chain, delta: float) -> Table:
    table = Table("total")
    for name in ("charges", "steps", "epsilon", "by Renyi", "by loss distribution"):
        table.add_column(name, justify="right")
    parts = {f"study {s[:STUDY_DIGITS]}": charges for s, charges in studies_of(chain).items()}
    for name, charges in {**parts, LIFE: list(chain.charges.values())}.items():
        steps = sum(charge.steps for charge in charges)
        bounds = epsilons_of_charges(charges, delta)
        tighter = bounds.prv if bounds.exact is None else bounds.exact
        # What counts against the cap of the data set's life holds for any order of studies.
        counts = bounds.rdp if name == LIFE else bounds.value
        told = (counts, bounds.rdp, tighter)
        epsilons = ("-" if value is None else _told(value) for value in told)
        table.add_row(escape(name), str(len(charges)), str(steps), *epsilons)
    return table


def _verify_export(console: Console, path: Path, chains: dict[Path, Chain]) -> None:
    body = read_export(path)
    console.print(
        f"genuine: {path}, {len(body['rows'])} rows, signed by {body['public_key']}; "
        "compare this key with the one the site told you",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )
    # A site may have ledgers of other data sets, which the export says nothing about.
    first = body["rows"][0]["hash"]
    same = {at: chain for at, chain in chains.items() if chain.rows[0].hash == first}
    for ledger, chain in (same or chains).items():
        check_continues(chain, body, ledger)
        console.print(
            f"goes on from the export: {ledger}", highlight=False, markup=False, soft_wrap=True
        )


def _console() -> Console:
    # A log file has no width of its own; rich would squeeze the table into 80 columns.
    return Console() if sys.stdout.isatty() else Console(width=LOG_WIDTH)


if __name__ == "__main__":
    main()
