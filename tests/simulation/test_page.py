"""wardround-sim page as a process: the printed URL opens it, and Ctrl-C ends it without a trace."""

import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from common.schema import SettingsError
from common.web import PARAMETER
from server.events import event_log
from simulation.page import page
from tests.served import dialled
from tests.server.page.conftest import begun

IGNORES_CTRL_C = "import os, signal; signal.signal(signal.SIGINT, signal.SIG_IGN); "
"""What a script does to the jobs in its background."""


@pytest.mark.parametrize("begun_by", ["", IGNORES_CTRL_C], ids=["a shell", "a script"])
def test_the_page_is_served_until_ctrl_c(tmp_path: Path, begun_by: str) -> None:
    event_log(begun(tmp_path / "one"))("start", rounds=2, done=0)
    command = [sys.executable, "-m", "simulation.cli", "page", str(tmp_path), "--port", "0"]
    if begun_by:
        command = [sys.executable, "-c", f"{begun_by}os.execv({command[0]!r}, {command})"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            process.stdout.readline()
            url, _ = dialled(process.stdout.readline().strip())
            address, token = url.split(f"/?{PARAMETER}=")
            assert httpx.get(f"{address}/api/runs").status_code == 401
            headers = {"authorization": f"Bearer {token}"}
            (line,) = httpx.get(f"{address}/api/runs", headers=headers).json()
            assert (line["id"], line["rounds"]) == ("one", 2)
            with httpx.stream("GET", f"{address}/api/runs/one/events", headers=headers) as stream:
                next(stream.iter_lines())
                process.send_signal(signal.SIGINT)
                _, errors = process.communicate(timeout=60)
        finally:
            process.kill()
    assert (process.returncode, errors) == (130, "")


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="none is no folder"):
        page(tmp_path / "none")
