import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from common.supervision import ENVIRONMENT

ROOT = Path(__file__).parents[2]
BLOCK_MB, TIMES = 80, 10
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
CHILD = f"""
import json, resource, sys, threading
import numpy as np
from common.kept_memory import keep_freed_memory

kept = sys.argv[1] == "kept" and keep_freed_memory()

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

def work():
    np.ones({BLOCK_MB * 10**6}, np.uint8)
    before = faults()
    for _ in range({TIMES}):
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
        env={**os.environ, **environment},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    kept, faults = json.loads(child.stdout)
    return kept, faults


@pytest.mark.parametrize("environment", [{}, ENVIRONMENT], ids=["by hand", "daemon"])
def test_what_was_freed_is_had_again_without_a_page_of_it_anew(environment: dict[str, str]) -> None:
    kept, faults = faults_of("kept", environment)
    if not kept:
        pytest.skip("another C library than GNU's")
    pages = TIMES * BLOCK_MB * 10**6 // PAGE_BYTES
    assert faults < pages / 100


def test_else_a_daemons_process_has_every_page_anew() -> None:
    _, faults = faults_of("as it is", ENVIRONMENT)
    # Where the kernel hands out larger pieces than a page they are fewer.
    assert faults >= TIMES
