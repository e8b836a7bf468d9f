import stat
from pathlib import Path

import pytest

from common.certificates import CertificateError, fingerprint, read_certificate
from common.schema import SettingsError
from server.federation.home import (
    FederationSettings,
    HomeError,
    home_folder,
    make_home,
    open_home,
)
from tests.server.federation.homes import NOW, a_home


def _modes(folder: Path) -> dict[str, int]:
    return {
        str(path.relative_to(folder)): stat.S_IMODE(path.stat().st_mode)
        for path in folder.rglob("*")
    }


def test_a_home_opens_as_it_was_made_and_its_keys_are_the_owners_alone(tmp_path: Path) -> None:
    made = a_home(tmp_path / "home")
    assert open_home(tmp_path / "home") == made
    modes = _modes(made.path)
    assert {modes[name] for name in ("ca", "server", "sites", "runs", "database")} == {0o700}
    assert {modes[name] for name in ("ca/ca.key", "server/server.key")} == {0o600}
    assert set(modes) == {
        *("ca", "ca/ca.key", "ca/ca.pem", "server", "server/server.key", "server/server.pem"),
        *("sites", "runs", "database", "federation.yaml", ".lock"),
    }


def test_a_federation_is_never_made_over_another(tmp_path: Path) -> None:
    home = a_home(tmp_path)
    before = fingerprint(read_certificate(home.ca_certificate))
    with pytest.raises(HomeError, match="holds a federation already"):
        a_home(tmp_path, "Another")
    (tmp_path / "federation.yaml").unlink()
    with pytest.raises(HomeError, match=r"ca, server, sites.*but no federation.yaml"):
        a_home(tmp_path, "Another")
    assert fingerprint(read_certificate(home.ca_certificate)) == before


def test_a_home_that_was_cut_short_is_made_anew(tmp_path: Path) -> None:
    (tmp_path / ".unfinished").touch()
    for name in ("ca", "server"):
        (tmp_path / name).mkdir()
    (tmp_path / "ca" / ".ca.key.tmp").write_bytes(b"half")
    with pytest.raises(HomeError, match="no federation's home"):
        open_home(tmp_path)
    home = a_home(tmp_path)
    assert not (tmp_path / ".unfinished").exists()
    home.authority()


def test_a_folder_that_is_no_federation_is_told(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "absent"):
        with pytest.raises(HomeError, match=r"--home.*init"):
            open_home(folder)


@pytest.mark.parametrize(
    "text", ["", "[]", "name: x", "name: [", "name: x\nhosts: [a]\nmore: 1", "name: x\nhosts: 3"]
)
def test_settings_that_do_not_fit_are_told(tmp_path: Path, text: str) -> None:
    (tmp_path / "federation.yaml").write_text(text)
    with pytest.raises(SettingsError):
        open_home(tmp_path)


@pytest.mark.parametrize(
    ("name", "hosts", "port"),
    [
        ("", ["a"], 1),
        ("a/b", ["a"], 1),
        ("x" * 49, ["a"], 1),
        ("x", [], 1),
        ("x", ["a b"], 1),
        ("x", ["a"], 0),
        ("x", ["a"], 65_536),
    ],
)
def test_a_name_host_or_port_that_cannot_be_is_refused(
    name: str, hosts: list[str], port: int
) -> None:
    with pytest.raises(ValueError, match=r"not allowed|no host|without a host"):
        FederationSettings(name=name, hosts=hosts, port=port)


def test_an_authority_whose_key_others_may_read_does_not_sign(tmp_path: Path) -> None:
    home = a_home(tmp_path)
    (tmp_path / "ca" / "ca.key").chmod(0o644)
    with pytest.raises(CertificateError, match="chmod 600"):
        home.authority()


def test_the_folder_is_told_by_option_then_environment_then_default() -> None:
    environment = {"WARDROUND_HOME": "/fed"}
    assert home_folder(Path("x"), environment) == Path("x")
    assert home_folder(None, environment) == Path("/fed")
    assert home_folder(None, {}) == home_folder(None, {"WARDROUND_HOME": ""}) == Path("federation")


def test_a_home_may_stand_in_a_folder_with_other_files(tmp_path: Path) -> None:
    (tmp_path / "lost+found").mkdir()
    settings = FederationSettings(name="f", hosts=["localhost"])
    assert make_home(tmp_path, settings, NOW).settings == settings
