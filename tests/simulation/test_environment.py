import json
import subprocess
import sys
import time
from pathlib import Path

import psutil

SCRIPT = """
import json, os, signal
from simulation.environment import worker_processes

def asked(_):
    import common
    return os.getpid(), common.__file__, os.environ.get("ASKED")

if __name__ == "__main__":
    with worker_processes(1, most_jobs=1) as pool:
        first = list(pool.map(asked, range(2)))
    os.environ["ASKED"] = "now"
    pool = worker_processes(1)
    told = [*first, *pool.map(asked, range(2))]
    print(json.dumps(told), flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""
DEADLINE_S = 60


def test_workers_have_the_code_and_the_environment_of_who_asks_and_end_with_it(
    tmp_path: Path,
) -> None:
    script, elsewhere = tmp_path / "tool" / "script.py", tmp_path / "elsewhere"
    script.parent.mkdir()
    script.write_text(SCRIPT)
    # What lies in the current folder is nobody's code.
    (elsewhere / "common").mkdir(parents=True)
    (elsewhere / "common" / "__init__.py").write_text("raise SystemExit('the wrong one')\n")
    done = subprocess.run(
        [sys.executable, str(script)], cwd=elsewhere, capture_output=True, text=True
    )
    told = json.loads(done.stdout)
    assert {Path(file).parent.parent for _, file, _ in told} == {Path(__file__).parents[2]}
    assert [environment for *_, environment in told] == [None, None, "now", "now"]
    # One job each, then two in one.
    first, second, *last = [pid for pid, *_ in told]
    assert first != second
    assert last[0] == last[1]
    # The process was killed.
    deadline = time.monotonic() + DEADLINE_S
    while psutil.pid_exists(last[0]):
        assert time.monotonic() < deadline, "a worker outlived the process that it works for"
        time.sleep(0.05)
