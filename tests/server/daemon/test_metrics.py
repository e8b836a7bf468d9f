import json
import re
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

DASHBOARD = Path(__file__).parents[3] / "docker" / "grafana" / "wardround.json"


def test_the_metrics_tell_sites_studies_and_certificates(tmp_path: Path) -> None:
    now = datetime.now(UTC)
    home = a_home(tmp_path / "centre", now=now)
    for name, days in (("st-a", 90), ("st-b", 20), ("st-c", 90)):
        admit(home, signing_request(new_key(), name), name, now, days)
    revoke(home, "st-c", now)
    Presence(home.path).hear("st-a", Word(session="s"))
    runs, done = (ask(home.path, name, "ab", [], ["st-a"], 1.0) for name in ("one", "two"))
    tell = event_log(runs.folder)
    tell("start", rounds=4, done=0)
    tell("measured", round=0, metric="dice", values={"st-a": 0.25, "st-b": 0.75})
    part = {"seconds": 1.0, "bytes_sent": 10, "bytes_received": 20, "train_loss": None}
    tell(
        "round done",
        round=1,
        seconds=2.0,
        sites={"st-a": part},
        missing={"st-b": "gone"},
        epsilon={"st-a": 1.5},
    )
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
        f'wardround_study_rounds_planned{{run="{runs.folder.name}"}} 4.0',
        f'wardround_study_bytes{{run="{runs.folder.name}"}} 30.0',
        f'wardround_study_metric{{metric="dice",run="{runs.folder.name}"}} 0.5',
        f'wardround_study_site_epsilon{{run="{runs.folder.name}",site="st-a"}} 1.5',
        f'wardround_study_site_missed{{run="{runs.folder.name}",site="st-b"}} 1.0',
    ):
        assert line in told
    values = dict(line.rsplit(" ", 1) for line in told if not line.startswith("#"))
    # A whole day less once a part of it has gone.
    assert float(values['wardround_site_certificate_days{site="st-b"}']) in (19.0, 20.0)
    assert not any("st-c" in line for line in told)


def test_the_dashboard_asks_for_metrics_that_there_are(tmp_path: Path) -> None:
    home = a_home(tmp_path / "centre")
    collected = HomeCollector(home, lambda: {}).collect()
    names = {metric.name for metric in collected}
    dashboard = json.loads(DASHBOARD.read_text())
    asked = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    used = {name for expression in asked for name in re.findall(r"wardround_\w+", expression)}
    assert used - names == set()
    assert names - used == set()
