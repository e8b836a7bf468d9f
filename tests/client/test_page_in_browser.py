"""A site's own page in a real browser: on a phone, on paper, and without a word to anybody."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from client.trainer import trainer_at
from tests.browser import IN_A_BROWSER, chromium, grave_findings, opened
from tests.builders import SLICES, volumes_site
from tests.client.test_page import page_of

pytestmark = IN_A_BROWSER
WIDE = "[...document.querySelectorAll('.scroll')].map((one) => one.scrollWidth > one.clientWidth)"
# Figures of every class: a table that is wider than a phone.
MANY = (
    *SLICES,
    "task.classes=[lesion, ventricles, calcifications]",
    "task.label_values=[1,2,3]",
    "task.out_channels=4",
)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as found:
        yield found


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    return page_of(trainer_at(volumes_site(folder / "a", train=3, test=4)), *MANY)


def test_it_asks_for_nothing_but_itself_and_says_nothing(browser: Any, written: Path) -> None:
    page = browser.new_page()
    asked: list[str] = []
    said: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: said.append(message.text))
    page.goto(written.as_uri(), wait_until="networkidle")
    # The patients' images are in the page itself.
    assert page.locator(".gallery image").count() == 4
    assert [url for url in asked if not url.startswith("data:")] == [written.as_uri()]
    assert said == []


def test_on_a_phone_the_images_fit_and_the_table_scrolls_in_its_own_box(
    browser: Any, written: Path, tmp_path: Path
) -> None:
    phone = {"viewport": {"width": 390, "height": 844}, "device_scale_factor": 2}
    page, wrong = opened(browser, written.as_uri(), is_mobile=True, **phone)
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    assert page.evaluate(WIDE) == [True]
    page.screenshot(path=tmp_path / "phone.png", full_page=True)
    assert wrong == []


def test_on_paper_the_whole_table_is_there(browser: Any, written: Path) -> None:
    page, _ = opened(browser, written.as_uri(), viewport={"width": 718, "height": 1000})
    page.emulate_media(media="print")
    assert page.evaluate("document.documentElement.scrollWidth") == 718
    assert page.evaluate(WIDE) == [False]


def test_a_screen_reader_has_every_image_and_the_table_by_name(browser: Any, written: Path) -> None:
    page, _ = opened(browser, written.as_uri(), bypass_csp=True)
    assert grave_findings(page) == []
    assert page.get_by_role("main").count() == 1
    images = page.get_by_role("img").all()
    names = [image.get_attribute("aria-label") for image in images]
    assert len(set(names)) == len(names) == 4
    assert page.get_by_role("table", name="Every held-out patient, the worst first").count() == 1
    assert page.get_by_role("rowheader").count() == 4
