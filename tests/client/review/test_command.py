"""The command prints one URL, which alone opens the pages, and Ctrl-C ends it."""

import re
import signal
import subprocess
import sys
from pathlib import Path

import httpx

from tests.builders import PICTURES, pictures_site
from tests.finished import finished_run
from tests.served import dialled


def test_the_printed_url_opens_the_list_of_images(tmp_path: Path) -> None:
    site = pictures_site(tmp_path / "site", train=2, test=0)
    run = finished_run(tmp_path / "run", *PICTURES)
    command = [sys.executable, "-m", "client.cli", "review", "--model", str(run)]
    with subprocess.Popen(
        [*command, "--site", str(site), "--author", "dr-lee"], stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            printed = re.search(r"http://\S+", next(x for x in process.stdout if "token=" in x))
            assert printed is not None
            url, headers = dialled(printed[0])
            with httpx.Client(headers=headers, trust_env=False, timeout=30) as client:
                assert client.get(url.partition("?")[0]).status_code == 401
                cookie = client.get(url).headers["set-cookie"].partition(";")[0]
                page = client.get(url.partition("?")[0], headers={"cookie": cookie}).text
            assert "Review of" in page
            assert "by dr-lee" in page
            process.send_signal(signal.SIGINT)
            assert process.wait(30) == 130
        finally:
            process.kill()
