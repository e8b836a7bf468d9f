from datetime import UTC, datetime
from pathlib import Path

from prometheus_client import CollectorRegistry, generate_latest

from common.certificates import new_key, signing_request
from common.files import write_json
from server.daemon.metrics import HomeCollector
from server.events import event_log
from server.federation.enrolment import admit, revoke
from server.presence import Presence, Word
from server.studies import RESULT, ask
from tests.server.federation.homes import a_home


def test_the_metrics_tell_sites_studies_and_certificates(tmp_path: Path) -> None:
    now = datetime.now(UTC)
    home = a_home(tmp_path / "centre", now=now)
    for name, days in (("st-a", 90), ("st-b", 20), ("st-c", 90)):
        admit(home, signing_request(new_key(), name), name, now, days)
    revoke(home, "st-c", now)
    Presence(home.path).hear("st-a", Word(session="s"))
    runs, done = (ask(home.path, name, "ab", [], ["st-a"], 1.0) for name in ("one", "two"))
    event_log(runs.folder)("round done", round=1)
    write_json(done.folder / RESULT, {"status": "partial", "reason": "st-b: gone"})
    registry = CollectorRegistry()
    registry.register(HomeCollector(home, lambda: {"link": 2}))
    told = generate_latest(registry).decode().splitlines()
    for line in (
        'wardround_site_connected{site="st-a"} 1.0',
        'wardround_site_connected{site="st-b"} 0.0',
        'wardround_studies{status="partial"} 1.0',
        'wardround_studies{status="running"} 1.0',
        f'wardround_study_rounds{{run="{runs.folder.name}"}} 1.0',
        'wardround_restarts{part="link"} 2.0',
    ):
        assert line in told
    values = dict(line.rsplit(" ", 1) for line in told if not line.startswith("#"))
    # A whole day less once a part of it has gone.
    assert float(values['wardround_site_certificate_days{site="st-b"}']) in (19.0, 20.0)
    assert not any("st-c" in line for line in told)
