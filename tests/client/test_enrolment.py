import stat
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization

from client.enrolment import enroll, join, membership, site_basics, state_folder
from common.certificates import (
    CertificateError,
    certificate_of,
    certificate_pem,
    checked_request,
    fingerprint,
    new_key,
    openssh_public,
    public_der,
    read_certificate,
    read_private_key,
    signing_request,
)
from common.schema import SettingsError
from server.federation.authority import Authority
from server.federation.enrolment import admit, renew
from server.federation.home import Home
from server.federation.registry import Registry
from tests.server.federation.homes import NOW, a_home

NAME = "st-marys"


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """A federation without sites."""
    return a_home(tmp_path / "home")


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """State folder of a site that has not enrolled."""
    return tmp_path / "state"


def _files(state: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (state / "federation").iterdir()}


def test_the_key_is_made_once_and_is_the_sites_alone(state: Path) -> None:
    first, again = enroll(state, NAME), enroll(state, NAME)
    assert public_der(checked_request(first, NAME)) == public_der(checked_request(again, NAME))
    key = state / "federation" / "site.key"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert stat.S_IMODE(key.parent.stat().st_mode) == 0o700


def test_a_site_that_joined_has_all_it_needs(home: Home, state: Path) -> None:
    made = admit(home, enroll(state, NAME), NAME, NOW)
    told = fingerprint(read_certificate(home.ca_certificate))
    joined = join(state, made.to_bytes(), NOW, told.lower())
    assert (joined.centre.federation, joined.centre.site) == ("Nordic chest", NAME)
    assert (joined.centre.hosts, joined.centre.port) == (["localhost", "127.0.0.1"], 8443)
    assert joined.days_left(NOW) == 180
    assert membership(state) == joined
    assert fingerprint(read_certificate(joined.ca_certificate)) == told


def test_flower_reads_the_key_that_the_centre_registers(home: Home, state: Path) -> None:
    joined = join(state, admit(home, enroll(state, NAME), NAME, NOW).to_bytes(), NOW)
    key = serialization.load_ssh_private_key(joined.node_key(), None)
    registered = Registry(home).sites()[0].public_key
    assert openssh_public(key.public_key()) == registered


def test_a_new_key_takes_over_when_its_certificate_comes(home: Home, state: Path) -> None:
    join(state, admit(home, enroll(state, NAME), NAME, NOW).to_bytes(), NOW)
    old = (state / "federation" / "site.key").read_bytes()
    request = enroll(state, NAME, new_key=True)
    assert (state / "federation" / "site.key").read_bytes() == old
    assert enroll(state, NAME, new_key=True) != enroll(state, NAME)
    join(state, renew(home, NAME, NOW, request=request).to_bytes(), NOW)
    key = read_private_key(state / "federation" / "site.key")
    assert public_der(key.public_key()) == public_der(checked_request(request, NAME))
    assert "site.key.next" not in _files(state)


def test_a_renewal_comes_in_while_a_new_key_waits(home: Home, state: Path) -> None:
    join(state, admit(home, enroll(state, NAME), NAME, NOW).to_bytes(), NOW)
    enroll(state, NAME, new_key=True)
    join(state, renew(home, NAME, NOW).to_bytes(), NOW)
    assert "site.key.next" in _files(state)


def test_an_admission_for_another_key_is_refused(home: Home, state: Path) -> None:
    enroll(state, NAME)
    made = admit(home, signing_request(new_key(), NAME), NAME, NOW)
    with pytest.raises(CertificateError, match=r"another key.*enroll again"):
        join(state, made.to_bytes(), NOW)
    assert "site.pem" not in _files(state)


def test_an_admission_for_another_site_is_refused(home: Home, state: Path, tmp_path: Path) -> None:
    enroll(state, NAME)
    made = admit(home, enroll(tmp_path / "other", "st-johns"), "st-johns", NOW)
    with pytest.raises(CertificateError, match=r"'st-marys'.*'st-johns'"):
        join(state, made.to_bytes(), NOW)
    with pytest.raises(CertificateError, match=r"'st-marys'.*'st-johns'"):
        join(state, replace(made, site=NAME).to_bytes(), NOW)


def test_a_certificate_of_another_authority_is_refused(
    home: Home, state: Path, tmp_path: Path
) -> None:
    request = enroll(state, NAME)
    made = admit(home, request, NAME, NOW)
    other = a_home(tmp_path / "other")
    theirs = certificate_pem(read_certificate(other.ca_certificate)).decode()
    with pytest.raises(CertificateError, match="not signed by"):
        join(state, replace(made, ca=theirs).to_bytes(), NOW)
    # Another authority of the same name, with its own certificate for this key.
    forged = admit(other, request, NAME, NOW)
    told = fingerprint(read_certificate(home.ca_certificate))
    with pytest.raises(CertificateError, match="may be a forgery"):
        join(state, forged.to_bytes(), NOW, told)
    join(state, made.to_bytes(), NOW)
    before = _files(state)
    with pytest.raises(CertificateError, match=r"belongs to.*move .* away"):
        join(state, forged.to_bytes(), NOW)
    assert _files(state) == before


def test_an_authority_that_is_none_is_refused(state: Path, home: Home) -> None:
    request = enroll(state, NAME)
    made = admit(home, request, NAME, NOW)
    site = certificate_of(made.certificate.encode(), "it")
    key = read_private_key(state / "federation" / "site.key")
    forger = Authority(key=key, certificate=site, federation="Nordic chest")
    forged = forger.site_certificate(NAME, key.public_key(), NOW)
    bad = replace(made, ca=made.certificate, certificate=certificate_pem(forged).decode())
    with pytest.raises(CertificateError, match="not fit for TLS"):
        join(state, bad.to_bytes(), NOW)


def test_a_certificate_that_is_not_valid_now_is_refused(home: Home, state: Path) -> None:
    made = admit(home, enroll(state, NAME), NAME, NOW)
    with pytest.raises(CertificateError, match="ended on"):
        join(state, made.to_bytes(), NOW + timedelta(days=181))
    with pytest.raises(CertificateError, match="set the clock"):
        join(state, made.to_bytes(), NOW - timedelta(days=2))


def test_a_site_without_a_key_enrolls_first(home: Home, state: Path, tmp_path: Path) -> None:
    made = admit(home, enroll(tmp_path / "other", NAME), NAME, NOW)
    with pytest.raises(CertificateError, match="enroll here first"):
        join(state, made.to_bytes(), NOW)
    with pytest.raises(CertificateError, match="has not joined"):
        membership(state)


def test_a_key_that_others_may_read_is_not_used(home: Home, state: Path) -> None:
    made = admit(home, enroll(state, NAME), NAME, NOW)
    (state / "federation" / "site.key").chmod(0o640)
    with pytest.raises(CertificateError, match="chmod 600"):
        enroll(state, NAME)
    with pytest.raises(CertificateError, match="chmod 600"):
        join(state, made.to_bytes(), NOW)


def test_a_site_that_joined_keeps_its_name(home: Home, state: Path) -> None:
    join(state, admit(home, enroll(state, NAME), NAME, NOW).to_bytes(), NOW)
    with pytest.raises(CertificateError, match="joined as 'st-marys', not 'st-johns'"):
        enroll(state, "st-johns")


def test_a_join_cut_short_is_made_whole_by_the_next(home: Home, state: Path) -> None:
    made = admit(home, enroll(state, NAME), NAME, NOW).to_bytes()
    join(state, made, NOW)
    (state / "federation" / "site.pem").unlink()
    with pytest.raises(CertificateError, match="has not joined"):
        membership(state)
    assert join(state, made, NOW) == membership(state)
    (state / "federation" / "federation.json").write_text("{")
    with pytest.raises(CertificateError, match="join again"):
        membership(state)
    assert join(state, made, NOW) == membership(state)


def test_the_state_folder_is_relative_to_the_settings(tmp_path: Path) -> None:
    file = tmp_path / "site.yaml"
    file.write_text("name: st-marys\nmanifest: m.csv\n")
    assert site_basics(file) == (tmp_path / "state", NAME)
    file.write_text("state: /var/lib/wardround\nanything: 1\n")
    assert site_basics(file) == (Path("/var/lib/wardround"), None)
    assert state_folder(file) == Path("/var/lib/wardround")
    for wrong in ("", "[]", "state: 3", "name: 3", "name: [", "\x00"):
        file.write_text(wrong)
        with pytest.raises(SettingsError):
            site_basics(file)
    with pytest.raises(SettingsError, match="cannot be read"):
        site_basics(tmp_path / "absent.yaml")
