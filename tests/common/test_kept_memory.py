import json
import os
import subprocess
import sys
from pathlib import Path
from platform import libc_ver

import pytest

from common.kept_memory import keep_freed_memory
from common.supervision import ENVIRONMENT

GNU = pytest.mark.skipif(libc_ver()[0] != "glibc", reason="another C library than GNU's")

ROOT = Path(__file__).parents[2]
BLOCK_MB, TIMES = 80, 10
PAGES = TIMES * BLOCK_MB * 10**6 // os.sysconf("SC_PAGE_SIZE")
CHILD = f"""
import json, resource, sys, threading
import numpy as np
from common.kept_memory import give_back, keep_freed_memory

kept = sys.argv[1] != "as it is" and keep_freed_memory()

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

def work():
    np.ones({BLOCK_MB * 10**6}, np.uint8)
    before = faults()
    for _ in range({TIMES}):
        if sys.argv[1] == "given back":
            give_back()
        np.ones({BLOCK_MB * 10**6}, np.uint8)
    print(json.dumps([kept, faults() - before]))

# As a trainer's service does, not in the first thread.
thread = threading.Thread(target=work)
thread.start()
thread.join()
"""


def faults_of(way: str, environment: dict[str, str]) -> tuple[bool, int]:
    """Return whether memory is kept, and the pages that blocks had anew after the first."""
    child = subprocess.run(
        [sys.executable, "-c", CHILD, way],
        # Else NumPy asks for larger pieces than pages.
        env={**os.environ, **environment, "NUMPY_MADVISE_HUGEPAGE": "0"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    kept, faults = json.loads(child.stdout)
    return kept, faults


@GNU
@pytest.mark.parametrize("environment", [{}, ENVIRONMENT], ids=["by hand", "daemon"])
def test_what_was_freed_is_had_again_without_a_page_of_it_anew(environment: dict[str, str]) -> None:
    kept, faults = faults_of("kept", environment)
    assert kept
    assert faults < PAGES / 100


@GNU
def test_else_a_daemons_process_has_every_page_anew() -> None:
    _, faults = faults_of("as it is", ENVIRONMENT)
    assert faults > PAGES / 2


@GNU
def test_what_is_given_back_is_had_anew() -> None:
    _, faults = faults_of("given back", ENVIRONMENT)
    assert faults > PAGES / 2


@pytest.mark.skipif(libc_ver()[0] == "glibc", reason="GNU's C library keeps it")
def test_another_c_library_is_left_as_it_is() -> None:
    assert not keep_freed_memory()
