import json
from dataclasses import replace
from typing import Any

import pytest

from common.admission import Admission, admission_of
from common.certificates import CertificateError

GOOD = Admission(
    federation="Nordic chest",
    site="st-marys",
    hosts=["localhost", "::1"],
    port=8443,
    ca="PEM",
    certificate="PEM",
)


def test_an_admission_comes_back_as_it_was_written() -> None:
    assert admission_of(GOOD.to_bytes()) == GOOD


@pytest.mark.parametrize(
    "change",
    [
        {"site": "../x"},
        {"site": 3},
        {"hosts": []},
        {"hosts": "localhost"},
        {"hosts": [True]},
        {"hosts": ["https://a.b"]},
        {"port": 0},
        {"port": 65_536},
        {"port": "8443"},
        {"port": True},
        {"format": 2},
        {"federation": "evil\x1b[2J"},
        {"ca": None},
        {"more": 1},
    ],
)
def test_an_admission_with_one_value_that_does_not_fit_is_refused(change: dict[str, Any]) -> None:
    body = json.loads(GOOD.to_bytes())
    with pytest.raises(CertificateError) as error:
        admission_of(json.dumps({**body, **change}).encode())
    assert "\n" not in str(error.value)
    assert "\x1b" not in str(error.value)


@pytest.mark.parametrize(
    "content", [b"", b"hello", b"[]", b"3", b"{}", b"\xff\xfe", b"[" * 60_000, b'{"site": "x"}']
)
def test_what_is_no_admission_is_refused(content: bytes) -> None:
    with pytest.raises(CertificateError, match="no admission file"):
        admission_of(content)


def test_a_private_key_in_an_admission_is_refused() -> None:
    content = replace(GOOD, certificate="-----BEGIN PRIVATE KEY-----").to_bytes()
    with pytest.raises(CertificateError, match="no centre may have"):
        admission_of(content)
