import select
import subprocess
import sys
from pathlib import Path

import pytest

from common.locks import HeldError, held, is_held, waited_for


def test_a_lock_is_one_holders_and_free_after(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    with held(lock, "works here"):
        assert is_held(lock)
        with pytest.raises(HeldError, match="another process works here"), held(lock, "works here"):
            pass
    assert not is_held(lock)


def test_a_killed_process_gives_its_lock_back(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    program = (
        "import sys, time; from pathlib import Path; from common.locks import held\n"
        "with held(Path(sys.argv[1]), 'works'):\n    print('held', flush=True); time.sleep(60)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(lock)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    assert is_held(lock)
    process.kill()
    process.wait()
    with held(lock, "works", wait_s=5.0):
        assert is_held(lock)


def test_a_short_change_waits_for_the_one_before(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    code = (
        "import sys, pathlib\nfrom common.locks import waited_for\n"
        "with waited_for(pathlib.Path(sys.argv[1])):\n    print('held', flush=True)\n    input()"
    )
    words = [sys.executable, "-c", code, str(lock)]
    with waited_for(lock):
        other = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert other.stdout is not None
        assert not select.select([other.stdout], [], [], 0.5)[0]
    assert other.stdout.readline() == "held\n"
    other.kill()
    with waited_for(lock):
        other.communicate()
