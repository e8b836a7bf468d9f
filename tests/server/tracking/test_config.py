from pathlib import Path

import pytest

from server.tracking.config import TrackingConfig


@pytest.fixture
def secret(tmp_path: Path) -> str:
    (tmp_path / "secret").write_text("0123456789abcdef\n")
    return str(tmp_path / "secret")


@pytest.mark.parametrize(
    "url",
    ["https://hooks.example.org/a", "http://127.0.0.1:9/a", "http://localhost/a", "http://[::1]/a"],
)
def test_a_webhook_is_https_or_on_loopback(url: str, secret: str) -> None:
    assert TrackingConfig(webhook=url, webhook_secret=secret).secret() == b"0123456789abcdef"


@pytest.mark.parametrize(
    "url",
    [
        "http://hooks.example.org/a",
        "http://127.0.0.1.example.org/a",
        "http://localhost.example.org/a",
        "ftp://127.0.0.1/a",
        "https://",
        "hooks.example.org",
    ],
)
def test_another_webhook_is_refused(url: str, secret: str) -> None:
    with pytest.raises(ValueError, match="give an https URL"):
        TrackingConfig(webhook=url, webhook_secret=secret)


def test_a_webhook_without_a_good_secret_is_refused(tmp_path: Path) -> None:
    url = "https://hooks.example.org"
    with pytest.raises(ValueError, match=r"needs tracking\.webhook_secret"):
        TrackingConfig(webhook=url)
    with pytest.raises(ValueError, match="cannot be read"):
        TrackingConfig(webhook=url, webhook_secret=str(tmp_path / "none"))
    (tmp_path / "short").write_text("secret")
    with pytest.raises(ValueError, match="has 6 bytes; make one"):
        TrackingConfig(webhook=url, webhook_secret=str(tmp_path / "short"))


def test_a_password_does_not_stand_in_the_settings() -> None:
    with pytest.raises(ValueError, match="MLFLOW_TRACKING_PASSWORD") as refused:
        TrackingConfig(mlflow="https://anna:hidden@mlflow.example.org")
    assert "hidden" not in str(refused.value)


def test_no_stall_is_refused() -> None:
    with pytest.raises(ValueError, match=r"tracking\.stall_s=0"):
        TrackingConfig(stall_s=0.0)
