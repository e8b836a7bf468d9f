"""A person goes through the images in a browser, and what is decided is kept."""

from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from starlette.testclient import TestClient

from client.manifest import read_manifest
from client.readers import read_mask
from client.review.page import Review, app_of
from common.web import guarded
from tests.client.review.conftest import Made

Open = Callable[[Review], TestClient]


def test_without_the_token_there_is_no_image(reviewed: Made) -> None:
    app = guarded(app_of(reviewed("volumes")), "secret")
    client = TestClient(app, base_url="http://127.0.0.1:8000")
    for path in ("/", "/case/0", "/case/0/picture/1", "/case/0/mask", "/static/review.css"):
        assert client.get(path).status_code == 401
    assert client.post("/case/0/decision", data={"decision": "accepted"}).status_code == 401


def test_the_list_has_every_image_the_worst_first(reviewed: Made, browser: Open) -> None:
    review = reviewed("volumes")
    page = browser(review).get("/").text
    worst = min(review.cases, key=lambda case: case.agreement or 0)
    first = page.index("/case/")
    assert page[first:].startswith(f"/case/{worst.number}?by=worst")
    for case in review.cases:
        assert case.row.patient in page


def test_a_page_loads_nothing_that_the_security_headers_forbid(
    reviewed: Made, browser: Open
) -> None:
    client = browser(reviewed("volumes"))
    for path in ("/", "/case/0"):
        page = client.get(path).text
        for forbidden in ("data:", "style=", "<style", "onclick", "http://", "https://"):
            assert forbidden not in page.replace("http://www.w3.org", "")
        assert "<script src=" in page
    assert client.get("/static/review.js").headers["content-type"].startswith("text/javascript")
    assert client.get("/assets/icon.svg").status_code == 200
    assert client.get("/case/0/picture/1").content.startswith(b"\x89PNG")


@pytest.mark.parametrize("path", ["/static/page.py", "/static/..%2Fpage.py", "/static/none.css"])
def test_no_other_file_is_given(reviewed: Made, browser: Open, path: str) -> None:
    assert browser(reviewed("pictures")).get(path).status_code == 404


@pytest.mark.parametrize("path", ["/case/99", "/case/99/picture/0", "/case/99/mask"])
def test_an_image_that_is_not_there_is_not_found(reviewed: Made, browser: Open, path: str) -> None:
    assert browser(reviewed("pictures")).get(path).status_code == 404


def test_a_decision_stands_on_the_page_and_in_the_log(reviewed: Made, browser: Open) -> None:
    review = reviewed("volumes")
    client = browser(review)
    given = {"decision": "rejected", "note": "<b>too small</b>"}
    page = client.post("/case/1/decision?by=unsure", data=given).text
    assert "rejected</span> by dr-lee" in page
    assert "&lt;b&gt;too small&lt;/b&gt;" in page
    (newest,) = review.log.newest().values()
    assert (newest.image, newest.decision) == ("1.nii", "rejected")
    assert client.post("/case/1/decision", data={"decision": "maybe"}).status_code == 400


def test_the_models_mask_is_taken_corrected_and_given_back(
    reviewed: Made, browser: Open, tmp_path: Path
) -> None:
    review = reviewed("volumes")
    client = browser(review)
    taken = client.get("/case/2/mask")
    (tmp_path / "mask.nii.gz").write_bytes(taken.content)
    mask = nib.load(tmp_path / "mask.nii.gz")
    corrected = np.asarray(mask.dataobj).copy()
    corrected[:] = 0
    corrected[3:6, 3:6, 1] = 1
    nib.save(nib.Nifti1Image(corrected, mask.affine), tmp_path / "mask.nii.gz")
    content = (tmp_path / "mask.nii.gz").read_bytes()
    answer = client.put("/case/2/mask?name=mask.nii.gz", content=content)
    assert answer.status_code == 200, answer.text
    row = read_manifest(review.manifest)[2]
    assert row.mask is not None
    np.testing.assert_array_equal(read_mask(row.mask).array_CS[0], corrected)
    assert row.covariates["label_author"] == "dr-lee"
    assert review.cases[2].row == row
    assert "corrected</span> by dr-lee" in client.get("/case/2").text


def test_a_mask_that_cannot_be_used_is_told_on_the_page(reviewed: Made, browser: Open) -> None:
    answer = browser(reviewed("volumes")).put("/case/0/mask?name=mask.nii", content=b"garbage")
    assert (answer.status_code, "is broken or not a NIfTI file" in answer.text) == (400, True)


def test_a_label_is_put_right(reviewed: Made, browser: Open) -> None:
    review = reviewed("pictures")
    page = browser(review).post("/case/0/label?by=worst", data={"label": "pneumonia"}).text
    assert "Your label: <strong>pneumonia</strong>" in page
    assert read_manifest(review.manifest)[0].label == "pneumonia"


def test_what_stands_in_the_way_of_a_correction_is_told_on_the_page(
    reviewed: Made, browser: Open
) -> None:
    review = reviewed("pictures")
    client = browser(review)
    long = client.put(f"/case/0/mask?name=m.{'a' * 300}", content=b"x")
    assert long.status_code == 400
    row = review.cases[0].row
    kept = row.image.read_bytes()
    row.image.unlink()
    review.looked.cache_clear()
    assert client.get("/case/0").status_code == 404
    row.image.write_bytes(kept)
    with review.manifest.open("a") as file:
        file.write("one,cell,too,many,here\n")
    answer = client.post("/case/0/label", data={"label": "pneumonia"})
    assert (answer.status_code, "cells, the header has" in answer.text) == (400, True)
