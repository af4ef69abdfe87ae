"""The memory that a process and all that descend from it hold, read from outside."""

from pathlib import Path

PAGE_BYTES = 4096  # at least; with larger pages less is counted, and RLIMIT_AS binds sooner


def resident_bytes(pid: int) -> int:
    """Resident memory of the tree of a process; shared pages count once for each of its processes."""
    found, waiting = 0, [pid]
    while waiting:
        folder = Path("/proc") / str(waiting.pop())
        try:
            found += int((folder / "statm").read_text().split()[1]) * PAGE_BYTES
            for thread in (folder / "task").iterdir():
                waiting += map(int, (thread / "children").read_text().split())
        except (FileNotFoundError, ProcessLookupError, IndexError):
            continue  # it has ended
    return found
