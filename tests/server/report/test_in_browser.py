"""The page in a real browser, where there is one: it asks nobody for anything and says no error."""

import http.server
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest

from server.report.render import render_report

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
CELL = {"value": 0.8, "low": 0.7, "high": 0.9, "n": 6, "status": "ok"}


class Asked(http.server.BaseHTTPRequestHandler):
    """A proxy that notes what it is asked for, and gives nothing."""

    hosts: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        self.hosts.append(self.path)
        self.send_error(404)

    do_CONNECT = do_POST = do_GET

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def proxy() -> Iterator[int]:
    Asked.hosts.clear()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Asked) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


def shown(page: Path, proxy: int, folder: Path) -> tuple[str, bytes]:
    """Return what the browser logs, and its picture of the page."""
    picture = folder / "page.png"
    done = subprocess.run(
        [
            str(CHROMIUM),
            *("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run"),
            *("--disable-background-networking", "--disable-component-update"),
            *("--disable-sync", "--disable-default-apps", "--enable-logging=stderr"),
            f"--proxy-server=127.0.0.1:{proxy}",
            f"--user-data-dir={folder / 'profile'}",
            "--window-size=900,2000",
            f"--screenshot={picture}",
            page.as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    return done.stderr, picture.read_bytes()


def with_shift(result: dict[str, Any]) -> dict[str, Any]:
    sites = list(result["sites"])
    gain = {"gap": 0.1, "low": 0.05, "high": 0.2, "verdict": "helped"}
    summary = {"mean": 0.8, "worst": 0.8, "worst_site": sites[0], "spread": 0.0, "sites": 3}
    result["shift"] = {
        "metric": "dice",
        "matrix": {"federated": dict.fromkeys(sites, CELL), "local": dict.fromkeys(sites, CELL)},
        "benefit": dict.fromkeys(sites, gain),
        "summary": {"federated": summary, "local": summary},
        "subgroups": {"sex=F": dict.fromkeys(sites, CELL)},
        "reliability": {sites[0]: [{"confidence": 0.9, "accuracy": 0.8, "patients": 12}]},
    }
    return result


@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium here")
def test_the_page_asks_nobody_and_logs_no_error(
    make: Callable[..., dict[str, Any]], proxy: int, tmp_path: Path
) -> None:
    page, wrong = tmp_path / "report.html", tmp_path / "wrong.html"
    page.write_text(render_report(with_shift(make()), []))
    log, picture = shown(page, proxy, tmp_path)
    assert "CONSOLE" not in log
    assert len(picture) > 20_000
    # The browser itself looks for updates now and then.
    assert [host for host in Asked.hosts if "google" not in host] == []
    # The check sees what it looks for.
    wrong.write_text("<img src='http://elsewhere.test/x.png'><script>console.error('no')</script>")
    log, _ = shown(wrong, proxy, tmp_path)
    assert "CONSOLE" in log
    assert any("elsewhere.test" in host for host in Asked.hosts)
