import json
import subprocess
import sys

import pytest

from common.monai_alone import HIDDEN

ASKED = """
import json, sys
import common
before = [name for name in HIDDEN if name in sys.modules]
import monai.networks.nets, monai.losses
hidden = [name for name in HIDDEN if name not in sys.modules]
import matplotlib.pyplot, scipy.signal
from monai.networks.nets import UNet
json.dump([before, hidden, UNet.__module__], sys.stdout)
"""


@pytest.fixture(scope="module")
def told() -> list[list[str] | str]:
    words = [sys.executable, "-c", f"HIDDEN = {HIDDEN}\n{ASKED}"]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    found: list[list[str] | str] = json.loads(done.stdout)
    return found


def test_monai_takes_along_nothing_of_what_is_hidden(told: list[list[str] | str]) -> None:
    before, hidden, network = told
    assert (before, hidden) == ([], list(HIDDEN))
    assert str(network).startswith("monai.")


def test_what_was_there_before_monai_stays() -> None:
    words = (
        "import common, scipy.signal, monai, sys; print('scipy.signal' in sys.modules, "
        "monai.transforms.signal.array.has_iirnotch)"
    )
    done = subprocess.run([sys.executable, "-c", words], capture_output=True, text=True)
    assert done.stdout.split() == ["True", "True"], done.stderr
