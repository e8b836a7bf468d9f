import pytest

from client.privacy.ledger_rows import LedgerBusyError
from client.readers.picture import BadFileError
from common.error_codes import code_of, code_of_class
from common.schema import SettingsError


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (SettingsError("x"), "settings"),
        (LedgerBusyError("x"), "ledger-busy"),
        (ValueError("x"), "value"),
        (FileNotFoundError("x"), "system"),
        (KeyError("x"), "value"),
    ],
)
def test_an_error_has_the_code_of_its_class(error: Exception, code: str) -> None:
    assert code_of(error) == code


def test_a_code_is_the_words_of_the_classs_name() -> None:
    assert code_of_class(BadFileError.__name__) == "bad-file"
    assert code_of_class("_EndedError") == "ended"
