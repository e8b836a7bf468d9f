import logging

import pytest

from client.progress import StoppedError
from client.refusals import refused
from common.bodies import MessageError
from common.contract import Refusal, RefusalError


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (RefusalError("data", "files cannot be used"), "data", "files cannot be used"),
        (MessageError("the message holds no head"), "message", "the message holds no head"),
        (StoppedError(), "trainer", "stopped, as the server asked"),
        (KeyError("/data/p17"), "error", "KeyError at the site; its own log has the details"),
    ],
)
def test_the_server_reads_a_code_and_a_sentence_and_the_log_has_all(
    error: Exception, code: str, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    released = refused(logging.getLogger("site"), "st-a", error)
    assert released.body == Refusal(site="st-a", code=code, text=text)
    assert str(error) in caplog.text
    assert caplog.records
