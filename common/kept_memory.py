"""Memory that stays with a process once it had it, for one that trains."""

import ctypes

# malloc.h of the GNU C library; mallopt(3).
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX, M_ARENA_MAX = -1, -2, -4, -8
MOST = 2**31 - 1
PAD_BYTES = 2**26
"""That the process takes more than it needs, when it needs more."""


def keep_freed_memory() -> bool:
    """Have freed memory stay with this process; return whether it does.

    A training step frees what the next one needs. Of large blocks the GNU C library gives the pages
    back to the system each time, which hands out others, cleared, one by one: with the C library as
    it is that is a tenth to a fifth of a U-Net's step on a CPU, and with the settings of a daemon's
    processes (common/supervision.py) half of it and more. The process stays as large as it ever
    was. For the start of a process: its threads have one arena then, as memory is not kept in
    others. Nothing happens where there is another C library.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    wanted = {
        M_ARENA_MAX: 1,
        M_MMAP_MAX: 0,
        M_TRIM_THRESHOLD: MOST,
        M_TOP_PAD: PAD_BYTES,
    }
    return all(mallopt(option, value) for option, value in wanted.items())
