import pytest

from common.bodies import MessageError, packed_body, unpacked_body
from common.contract import Refusal, Request, StudyReference

REQUEST = Request(study=StudyReference(overrides=["a=1"], digest="0" * 64), round=3)


def test_a_body_comes_back_from_its_json() -> None:
    kind, text = packed_body(REQUEST)
    assert unpacked_body(kind, text, Refusal, Request) == REQUEST


@pytest.mark.parametrize(
    ("kind", "text", "told"),
    [
        ("Refusal", "{}", "holds Refusal, expected Request"),
        ("", "{}", "expected Request"),
        ("Request", "", "JSONDecodeError"),
        ("Request", "[" * 100_000, "RecursionError"),
        ("Request", "[]", "does not keep the contract"),
        ("Request", '{"study": {"overrides": [], "digest": ""}, "extra": 1}', "unknown fields"),
    ],
)
def test_what_is_no_body_is_refused_with_where(kind: str, text: str, told: str) -> None:
    with pytest.raises(MessageError, match=told):
        unpacked_body(kind, text, Request)
