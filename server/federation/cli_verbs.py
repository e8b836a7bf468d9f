"""The verbs init, admit, revoke, rotate and sites of wardround-server."""

import json
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from cryptography import x509
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from common.admission import Admission
from common.certificates import (
    WARN_DAYS,
    certificate_of,
    days_left,
    fingerprint,
    read_certificate,
    read_small,
)
from common.secret_files import PUBLIC, replace_file
from server.federation.authority import SITE_DAYS
from server.federation.enrolment import admit, renew, renew_server, revoke
from server.federation.home import (
    DEFAULT_PORT,
    FederationSettings,
    home_folder,
    make_home,
    open_home,
)
from server.federation.registry import Registry, SiteEntry

LOG_WIDTH = 140
_COLOURS = {"expiring": "yellow", "expired": "red", "revoked": "dim"}

HomeOption = Annotated[
    Path | None,
    typer.Option("--home", help="The federation's folder; $WARDROUND_HOME or ./federation."),
]
DaysOption = Annotated[int, typer.Option("--days", help="How long the certificate is valid.")]
OutOption = Annotated[
    Path | None, typer.Option("--out", help="The file to write; NAME.admission.json by default.")
]


def mount(app: typer.Typer) -> None:
    """Give the verbs to the command of the centre."""
    app.command("init")(init)
    app.command("admit")(admit_site)
    app.command("revoke")(revoke_site)
    app.command("rotate")(rotate)
    app.command("sites")(sites)


def init(
    name: Annotated[str, typer.Option(help="The federation's name, told to every site.")],
    host: Annotated[
        list[str], typer.Option(help="Name or address at which sites reach this machine; repeat.")
    ],
    port: Annotated[int, typer.Option(help="TCP port there.")] = DEFAULT_PORT,
    home: HomeOption = None,
) -> None:
    """Make a federation: its authority, its server's certificate, and no site yet."""
    settings = FederationSettings(name=name, hosts=host, port=port)
    made = make_home(home_folder(home), settings, _now())
    _say(f"made: {made.path}, the federation {name} at {', '.join(host)}, port {port}")
    _say_authority(read_certificate(made.ca_certificate))
    _say(f"keep an offline copy of {made.path / 'ca'}: without it no site can be admitted")


def admit_site(
    request: Annotated[Path, typer.Argument(metavar="CSR", help="The site's signing request.")],
    name: Annotated[str, typer.Option(help="The site's name, as it chose it.")],
    days: DaysOption = SITE_DAYS,
    out: OutOption = None,
    home: HomeOption = None,
) -> None:
    """Admit a site: check its request, sign its certificate, write the file to send back."""
    now = _now()
    made = admit(open_home(home_folder(home)), read_small(request), name, now, days)
    _hand_out(made, out, now)


def revoke_site(
    name: Annotated[str, typer.Argument(help="The site.")],
    reason: Annotated[str, typer.Option(help="Why, for the record.")] = "",
    home: HomeOption = None,
) -> None:
    """Refuse a site from now on; its key is never admitted again."""
    entry = revoke(open_home(home_folder(home)), name, _now(), reason)
    _say(f"revoked: {entry.name}, since {_minute(entry.revoked)} UTC")


def rotate(
    name: Annotated[str | None, typer.Argument(help="The site.")] = None,
    csr: Annotated[
        Path | None, typer.Option(help="A request for a new key, which replaces the old one.")
    ] = None,
    server: Annotated[bool, typer.Option("--server", help="Renew the server's own.")] = False,
    new_key: Annotated[
        bool, typer.Option("--new-key", help="With --server: also make a new key.")
    ] = False,
    days: DaysOption = SITE_DAYS,
    out: OutOption = None,
    home: HomeOption = None,
) -> None:
    """Give a site, or with --server the server, a new certificate; nothing restarts."""
    if server == (name is not None) or (new_key and not server) or (server and (csr or out)):
        raise ValueError(
            "rotate takes either a site (with --csr for its new key) or --server (with --new-key "
            "if wanted)"
        )
    folder, now = open_home(home_folder(home)), _now()
    if name is None:
        certificate = renew_server(folder, now, new_key=new_key)
        _say(f"the server's certificate: {days_left(certificate, now)} days left")
        return
    request = None if csr is None else read_small(csr)
    _hand_out(renew(folder, name, now, days, request), out, now)


def sites(
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
    home: HomeOption = None,
) -> None:
    """Show the sites, and for how many days their certificates and the server's hold."""
    folder, now = open_home(home_folder(home)), _now()
    entries = Registry(folder).sites()
    days = days_left(read_certificate(folder.server.certificate), now)
    if as_json:
        told = {
            "federation": folder.settings.name,
            "authority": fingerprint(read_certificate(folder.ca_certificate)),
            "server_days_left": days,
            "sites": [_row(entry, now) for entry in entries],
        }
        typer.echo(json.dumps(told, indent=2, sort_keys=True))
        return
    _console().print(_table(entries, now))
    _say(f"the server's certificate: {days} days left")
    if days < WARN_DAYS:
        _say("warning: renew it with wardround-server rotate --server")
    for entry in entries:
        if entry.status(now) in ("expiring", "expired"):
            _say(f"warning: renew it with wardround-server rotate {entry.name}")


def _row(entry: SiteEntry, now: datetime) -> dict[str, Any]:
    since = entry.revoked or entry.admitted
    return {
        "name": entry.name,
        "status": entry.status(now),
        "days_left": None if entry.revoked else entry.days_left(now),
        "since": since.isoformat(),
        "reason": entry.reason,
        "node_key": entry.key_fingerprint,
    }


def _table(entries: list[SiteEntry], now: datetime) -> Table:
    table = Table("site", "status")
    table.add_column("days left", justify="right")
    table.add_column("since (UTC)")
    table.add_column("node key", overflow="fold")
    for entry in entries:
        row = _row(entry, now)
        status, days = row["status"], row["days_left"]
        table.add_row(
            escape(entry.name),
            status,
            "-" if days is None else str(days),
            _minute(entry.revoked or entry.admitted),
            row["node_key"],
            style=_COLOURS.get(status),
        )
    return table


def _hand_out(admission: Admission, out: Path | None, now: datetime) -> None:
    target = out or Path(f"{admission.site}.admission.json")
    replace_file(target, admission.to_bytes(), PUBLIC)
    certificate = certificate_of(admission.certificate.encode(), "the admission")
    _say(f"written: {target}, for {admission.site}; {days_left(certificate, now)} days left")
    _say(f"send it there; the site runs: wardround-site join {target.name}")
    _say_authority(certificate_of(admission.ca.encode(), "the admission"))


def _say_authority(certificate: x509.Certificate) -> None:
    _say(f"authority: {fingerprint(certificate)}; tell the site this by telephone")


def _minute(moment: datetime | None) -> str:
    return "-" if moment is None else f"{moment.astimezone(UTC):%Y-%m-%d %H:%M}"


def _now() -> datetime:
    return datetime.now(UTC)


def _console() -> Console:
    # A log file has no width of its own; rich would squeeze the table into 80 columns.
    return Console() if sys.stdout.isatty() else Console(width=LOG_WIDTH)


def _say(line: str) -> None:
    _console().print(line, highlight=False, markup=False, emoji=False, soft_wrap=True)
