import json
import os
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from datetime import UTC, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from common.certificates import CertificateError, certificate_of, new_key, public_der
from common.certificates import signing_request as request_of
from server.federation.enrolment import admit, renew, revoke
from server.federation.home import Home
from server.federation.registry import Registry, RegistryError
from tests.server.federation.homes import NOW, a_home, a_request

ROOT = Path(__file__).parents[3]
_WRITER = """
import sys
from pathlib import Path
from datetime import datetime, UTC
from server.federation.enrolment import renew
from server.federation.home import open_home
from common.certificates import certificate_of
home = open_home(Path(sys.argv[1]))
while True:
    made = renew(home, "st-marys", datetime.now(UTC))
    print(certificate_of(made.certificate.encode(), "it").serial_number, flush=True)
"""


def _admitted(home: Home, name: str) -> tuple[int, bytes]:
    key: ec.EllipticCurvePrivateKey = new_key()
    made = admit(home, request_of(key, name), name, NOW)
    serial = certificate_of(made.certificate.encode(), name).serial_number
    return serial, public_der(key.public_key())


def test_a_certificate_is_its_sites_and_nobody_elses(tmp_path: Path) -> None:
    home = a_home(tmp_path)
    registry = Registry(home)
    marys, johns = _admitted(home, "st-marys"), _admitted(home, "st-johns")
    assert registry.site_of(*marys) == "st-marys"
    assert registry.site_of(*johns) == "st-johns"
    assert registry.site_of(marys[0], johns[1]) is None
    assert registry.site_of(marys[0] + 1, marys[1]) is None
    assert [entry.name for entry in registry.sites()] == ["st-johns", "st-marys"]


def test_a_certificate_that_has_ended_is_none_where_the_clock_is_told(tmp_path: Path) -> None:
    home = a_home(tmp_path)
    marys = _admitted(home, "st-marys")
    registry = Registry(home)
    assert registry.site_of(*marys, NOW + timedelta(days=180)) == "st-marys"
    assert registry.site_of(*marys, NOW + timedelta(days=181)) is None


def test_a_revoked_certificate_of_a_key_that_is_not_is_none(tmp_path: Path) -> None:
    home = a_home(tmp_path)
    marys = _admitted(home, "st-marys")
    registry = Registry(home)
    registry.save(registry.sites()[0].without_certificates(NOW))
    assert registry.site_of(*marys) is None


def test_a_change_by_another_process_is_seen_at_the_next_call(tmp_path: Path) -> None:
    home = a_home(tmp_path)
    marys = _admitted(home, "st-marys")
    registry = Registry(home)
    assert registry.site_of(*marys) == "st-marys"
    words = [sys.executable, "-m", "server.cli", "revoke", "st-marys", "--home", str(tmp_path)]
    subprocess.run(words, check=True, cwd=ROOT, capture_output=True)
    assert registry.site_of(*marys) is None


def test_no_change_is_missed_however_fast_they_follow(tmp_path: Path) -> None:
    home = a_home(tmp_path)
    marys = _admitted(home, "st-marys")
    registry, writer = Registry(home), Registry(home)
    entry = registry.sites()[0]
    for _ in range(30):
        writer.save(replace(entry, revoked=NOW))
        assert registry.site_of(*marys) is None
        # Three versions, of which the first and the last may have the same inode.
        writer.save(replace(entry, revoked=NOW))
        writer.save(entry)
        assert registry.site_of(*marys) == "st-marys"


def test_nothing_is_read_again_while_nothing_changes(tmp_path: Path) -> None:
    home = a_home(tmp_path)
    _admitted(home, "st-marys")
    registry = Registry(home)
    first = registry.sites()[0]
    assert registry.sites()[0] is first
    renew(home, "st-marys", NOW)
    assert registry.sites()[0] is not first


def test_one_broken_record_keeps_its_own_site_out_and_no_other(tmp_path: Path) -> None:
    home = a_home(tmp_path)
    registry = Registry(home)
    marys, johns = _admitted(home, "st-marys"), _admitted(home, "st-johns")
    (home.sites / "st-marys.json").write_text("{")
    assert registry.site_of(*marys) is None
    assert registry.site_of(*johns) == "st-johns"
    assert [entry.name for entry in registry.admitted()] == ["st-johns"]
    with pytest.raises(RegistryError, match=r"st-marys.json.*backup"):
        registry.sites()
    with pytest.raises(RegistryError, match=r"st-marys.json"):
        admit(home, a_request("st-lukes"), "st-lukes", NOW)


def test_a_revoked_site_is_not_among_the_admitted(tmp_path: Path) -> None:
    home = a_home(tmp_path)
    for name in ("st-marys", "st-johns"):
        _admitted(home, name)
    revoke(home, "st-marys", NOW, "test")
    assert [entry.name for entry in Registry(home).admitted()] == ["st-johns"]
    assert len(Registry(home).sites()) == 2


@pytest.mark.parametrize(
    "change",
    [
        {"name": "st-johns"},
        {"public_key": "ssh-rsa AAAA"},
        {"certificates": []},
        {"certificates": [{"serial": "z"}]},
        {"admitted": "2026-01-01T00:00:00"},
        {"admitted": None},
        {"revoked": 3},
        {"former_keys": ["x"]},
    ],
)
def test_a_record_with_one_wrong_value_is_broken(tmp_path: Path, change: dict[str, object]) -> None:
    home = a_home(tmp_path)
    marys = _admitted(home, "st-marys")
    path = home.sites / "st-marys.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    registry = Registry(home)
    assert registry.site_of(*marys) is None
    with pytest.raises(RegistryError, match="no record of a site"):
        registry.sites()


def test_a_record_comes_back_as_it_was_saved(tmp_path: Path) -> None:
    home = a_home(tmp_path)
    _admitted(home, "st-marys")
    entry = Registry(home).sites()[0]
    changed = replace(
        entry.without_certificates(NOW), reason="left for now", former_keys=(entry.public_key,)
    )
    Registry(home).save(changed)
    assert Registry(home).site("st-marys") == changed
    assert Registry(home).site("st-johns") is None
    assert changed.admitted.tzinfo is UTC
    with pytest.raises(CertificateError):
        Registry(home).site("../ca/ca")


def test_a_status_follows_the_clock(tmp_path: Path) -> None:
    home = a_home(tmp_path)
    _admitted(home, "st-marys")
    (entry,) = Registry(home).sites()
    told = {days: entry.status(NOW + timedelta(days=days)) for days in (0, 150, 151, 180, 181)}
    assert told == {
        0: "admitted",
        150: "admitted",
        151: "expiring",
        180: "expiring",
        181: "expired",
    }
    assert revoke(home, "st-marys", NOW).status(NOW) == "revoked"


def test_without_its_folder_no_site_comes_in(tmp_path: Path) -> None:
    home = a_home(tmp_path)
    marys = _admitted(home, "st-marys")
    registry = Registry(home)
    assert registry.site_of(*marys)
    home.sites.rename(tmp_path / "gone")
    with pytest.raises(RegistryError, match="none may come in"):
        registry.site_of(*marys)


def test_a_kill_leaves_a_whole_registry_that_knows_all_that_was_handed_out(
    tmp_path: Path,
) -> None:
    home = a_home(tmp_path)
    _admitted(home, "st-marys")
    for lines in (1, 4, 9):
        writer = subprocess.Popen(
            [sys.executable, "-c", _WRITER, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE
        )
        assert writer.stdout is not None
        handed_out = {int(writer.stdout.readline()) for _ in range(lines)}
        os.kill(writer.pid, signal.SIGKILL)
        handed_out |= {int(line) for line in writer.communicate()[0].splitlines()}
        (entry,) = Registry(home).sites()
        assert handed_out <= set(entry.serials)
        renew(home, "st-marys", NOW)


def test_changes_of_many_at_once_are_all_kept(tmp_path: Path) -> None:
    home = a_home(tmp_path)
    names = [f"site-{number}" for number in range(6)]
    threads = [
        threading.Thread(target=admit, args=(home, a_request(name), name, NOW)) for name in names
    ]
    threads += [
        threading.Thread(target=admit, args=(home, request, "twin", NOW))
        for request in [a_request("twin")] * 3
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    entries = {entry.name: len(entry.serials) for entry in Registry(home).sites()}
    assert entries == {**dict.fromkeys(names, 1), "twin": 3}
