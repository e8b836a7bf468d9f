import hashlib
import io
import zipfile

from flwr.common.config import get_fab_config

from common.bundle import code_free_bundle


def test_the_bundle_names_the_installed_apps_and_holds_no_code() -> None:
    bundle = code_free_bundle()
    names = zipfile.ZipFile(io.BytesIO(bundle.content)).namelist()
    assert sorted(names) == [".info/CONTENT", "pyproject.toml"]
    app = get_fab_config(bundle.content)["tool"]["flwr"]["app"]
    assert app["components"] == {"serverapp": "server.app:app", "clientapp": "client.app:app"}


def test_the_bundle_is_the_same_bytes_each_time() -> None:
    first = code_free_bundle()
    code_free_bundle.cache_clear()
    assert code_free_bundle() == first
    assert hashlib.sha256(first.content).hexdigest() == first.sha256
