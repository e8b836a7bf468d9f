"""The process of Flower's SuperExec, which ends with its supervisor, killed or not.

Its own look after --parent-pid takes a killed parent that nobody has reaped for a living one.

    python -m server.daemon.executor ARGUMENTS OF flower-superexec
"""

import os
import sys

from common.supervision import beside_python, end_with_supervisor

PROGRAM = "flower-superexec"


def main() -> None:
    """Become the SuperExec."""
    end_with_supervisor()
    path = beside_python(PROGRAM)
    os.execv(sys.executable, [sys.executable, path, *sys.argv[1:]])


if __name__ == "__main__":
    main()
