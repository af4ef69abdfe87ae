"""Have the C library keep what a step of a training has freed, for the next step asks for the same again.

By default glibc gives large blocks back to the system, which then clears every page of every step anew: a fifth of the
CPU time of a small model's training.
"""

import ctypes

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD = -1, -2, -3  # of mallopt(3)
KEPT = (2**30, 2**25)  # bytes of the largest block that is kept; glibc before 2.35 takes the second at most
FREE = 2**30  # bytes of free memory that are kept
AT_ONCE = 2**26  # bytes that are asked of the system at least


def keep_freed_memory() -> None:
    """For this process, and on glibc alone: elsewhere nothing happens.

    The other two settings end glibc's own choice of the first, so they are set with it or not at all.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None and any(mallopt(M_MMAP_THRESHOLD, size) for size in KEPT):
        mallopt(M_TRIM_THRESHOLD, FREE)
        mallopt(M_TOP_PAD, AT_ONCE)
