"""What this process may use of its machine, or of the container that it runs in (cgroup v2)."""

import os
from contextlib import suppress
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")


def num_cores() -> int:
    """Cores, at least one; of a quota the whole ones."""
    cores = len(os.sched_getaffinity(0))
    with suppress(OSError, ValueError):  # no container, or one without a quota
        quota, period = map(int, (CGROUP / "cpu.max").read_text().split())
        cores = min(cores, max(quota // period, 1))
    return cores


def free_memory() -> int:
    """Bytes that can be had; of a container's limit all, as what is used of it may be files that were read."""
    import psutil  # here, as it takes a moment that others who ask for cores need not spend

    free = int(psutil.virtual_memory().available)
    with suppress(OSError, ValueError):
        free = min(free, int((CGROUP / "memory.max").read_text()))
    return free
