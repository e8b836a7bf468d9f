"""A page in headless Chromium, through Playwright; tests without a Chromium say so and skip."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
IN_A_BROWSER = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium here")
WAIT_MS = 20_000
GRAVE = ("serious", "critical")


@contextmanager
def chromium() -> Iterator[Any]:
    """Give a browser."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        try:
            yield browser
        finally:
            browser.close()


def opened(browser: Any, url: str, **settings: Any) -> tuple[Any, list[str]]:
    """Return a new page at an address, and the list that its errors will be in."""
    page = browser.new_context(ignore_https_errors=True, **settings).new_page()
    wrong: list[str] = []
    page.set_default_timeout(WAIT_MS)
    page.on("console", lambda told: wrong.append(told.text) if told.type == "error" else None)
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("dialog", lambda dialog: wrong.append(f"dialog: {dialog.message}"))
    page.goto(url)
    return page, wrong


def grave_findings(page: Any) -> list[str]:
    """Return what axe-core finds serious or critical on the page as it is."""
    from axe_playwright_python.sync_playwright import Axe

    found = Axe().run(page).response["violations"]
    return [
        f"{of['id']}: {[node['html'] for node in of['nodes']]}"
        for of in found
        if of["impact"] in GRAVE
    ]
