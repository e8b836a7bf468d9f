"""The command line, as a process."""

import subprocess
import sys


def sim(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run wardround-sim."""
    command = [sys.executable, "-m", "simulation.cli", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=180)
