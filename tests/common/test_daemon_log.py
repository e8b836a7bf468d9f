import json
import logging
from pathlib import Path

from common.daemon_log import JsonLines, daemon_log


def test_a_line_is_one_json_object_with_what_was_given_beside(tmp_path: Path) -> None:
    file = tmp_path / "logs" / "x.jsonl"
    log = daemon_log("a-part-of-this-test", file)
    log.warning("site %s\nis gone", "st-a", extra={"pid": 7})
    try:
        raise ValueError("broken")
    except ValueError:
        log.exception("failed")
    first, second = (json.loads(line) for line in file.read_text().splitlines())
    assert (first["level"], first["part"]) == ("warning", "a-part-of-this-test")
    assert (first["text"], first["pid"]) == ("site st-a\nis gone", 7)
    assert first["time"].endswith("Z")
    assert "ValueError: broken" in second["error"]


def test_what_json_does_not_know_is_told_as_text() -> None:
    record = logging.makeLogRecord({"name": "n", "msg": "x", "place": Path("/a")})
    assert json.loads(JsonLines().format(record))["place"] == "/a"
