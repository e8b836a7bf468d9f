"""Memory that stays with a process until it has done its work, for one that trains."""

import ctypes

# malloc.h of the GNU C library; mallopt(3).
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX, M_ARENA_MAX = -1, -2, -4, -8
NEVER = -1
PAD_BYTES = 2**26
"""That the process takes more than it needs, when it needs more."""
_C = ctypes.CDLL(None)


def keep_freed_memory() -> bool:
    """Have freed memory stay with this process; return whether it does.

    A training step frees what the next one needs. Of large blocks the GNU C library gives the pages
    back to the system, at the end of each step or with a daemon's settings (common/supervision.py)
    at once, and has others, cleared, one by one, which takes a good part of a step's time on a CPU
    (python -m simulation.benchmark.kept_memory). The process stays as large as it was at its
    largest, until give_back. At the start of a process all its threads have one arena then, as
    memory is not kept in others. Nothing happens where there is another C library.
    """
    mallopt = getattr(_C, "mallopt", None)
    if mallopt is None:
        return False
    wanted = {M_ARENA_MAX: 1, M_MMAP_MAX: 0, M_TRIM_THRESHOLD: NEVER, M_TOP_PAD: PAD_BYTES}
    return all(mallopt(option, value) for option, value in wanted.items())


def give_back() -> None:
    """Give freed memory back to the system, which clears it: images and gradients were in it."""
    trim = getattr(_C, "malloc_trim", None)
    if trim is not None:
        trim(ctypes.c_size_t(0))
