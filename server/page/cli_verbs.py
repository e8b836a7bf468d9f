"""The verbs page and password of wardround-server: the centre in a browser, and who may see it."""

import logging
import os
import ssl
import sys
import threading
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from common.credentials import Pair, watch_certificate
from common.daemon_log import daemon_log
from common.supervision import OWNER_ALONE
from common.web import listening, run
from server.federation.cli_verbs import HomeOption
from server.federation.home import Home, home_folder, open_home
from server.page.centre import centre_app, centre_pages
from server.page.certificate import HousePair, names_of
from server.page.door import PageDoor
from server.page.passwords import PasswordError, people, remove_person, set_password

RENEWED_EVERY_S = 30.0
LOG = "page.jsonl"


def mount(app: typer.Typer) -> None:
    """Give the verbs to the command of the centre."""
    app.command("page")(page)
    app.command("password")(password)


def page(
    listen: Annotated[str, typer.Option(help="Address to listen at.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="TCP port there.")] = 8444,
    certificate: Annotated[
        Path | None,
        typer.Option(help="PEM file, with its chain, that browsers trust; else our own."),
    ] = None,
    key: Annotated[Path | None, typer.Option(help="PEM file of its private key, 0600.")] = None,
    home: HomeOption = None,
) -> None:
    """Show the studies and the sites in a browser, by TLS and with a log-in, until Ctrl-C."""
    place = open_home(home_folder(home))
    if not people(place.path):
        raise PasswordError("nobody may enter yet; run  wardround-server password NAME  first")
    if (certificate is None) != (key is None):
        raise ValueError("--certificate and --key belong together; give both or none")
    own: Pair = place.server
    if certificate is not None and key is not None:
        own = HousePair(key=key, certificate=certificate)
    os.umask(OWNER_ALONE)
    _serve(place, own, listen, port, daemon_log("page", place.path / "logs" / LOG))


def password(
    name: Annotated[str, typer.Argument(help="Who, as anna.")],
    remove: Annotated[
        bool, typer.Option("--remove", help="Let this person enter no more.")
    ] = False,
    home: HomeOption = None,
) -> None:
    """Set a person's password for the page: asked for twice, or one line of a pipe."""
    place = open_home(home_folder(home))
    if remove:
        remove_person(place, name)
        _say(f"{name} may not enter the page any more; who was in is out")
        return
    if sys.stdin.isatty():
        word = typer.prompt("password", hide_input=True, confirmation_prompt="again")
    else:
        word = sys.stdin.readline().rstrip("\n")
    set_password(place, name, word)
    _say(f"{name} may enter by this password alone:  wardround-server page")


def _serve(home: Home, own: Pair, listen: str, port: int, log: logging.Logger) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    names = names_of(own.load_into(context))
    pages = centre_pages(home)
    # Not by 127.0.0.1 where the certificate has other names: cookies know no ports, and there a
    # browser would send the session also to what other users serve, and without TLS.
    door = PageDoor(centre_app(home, pages, log), home.path, names, pages, log)
    with listening(listen, port) as listener:
        ended = threading.Event()
        keeper = threading.Thread(target=_keep, args=(context, own, log, ended), daemon=True)
        keeper.start()
        log.info("the page is at https://%s:%d/", names[0], listener.getsockname()[1])
        run(door, [listener], ssl_context_factory=lambda config, default: context)
        ended.set()


def _keep(context: ssl.SSLContext, own: Pair, log: logging.Logger, ended: threading.Event) -> None:
    """Take up a renewed certificate; connections that are open stay as they are."""
    renewed = watch_certificate(context, own)
    while not ended.wait(RENEWED_EVERY_S):
        try:
            if renewed():
                log.info("the page's certificate was renewed")
        except (OSError, ValueError) as error:
            log.warning("the page's certificate cannot be read: %s", error)


def _say(text: str) -> None:
    Console().print(text, highlight=False, markup=False, soft_wrap=True)
