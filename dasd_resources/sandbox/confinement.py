"""What a program may use, and what of that a recipe decides."""

from dataclasses import dataclass

MAX_PROCESSES = 32  # threads count, too
MAX_OUTPUT_BYTES = 4 << 20  # four times a row's size: an expected output cannot be as long
MAX_DISK_BYTES = 64 << 20  # the private folder is in memory
MAX_FILES = 10_000  # in it
MAX_OPEN_FILES = 128
WALL_FACTOR = 3  # time that passes for each second of computing: a busy machine must not change a verdict
# What 32 idle copies of the interpreter hold: shared pages are counted once for each.
SHARED_BYTES = MAX_PROCESSES * (16 << 20)


@dataclass(frozen=True)
class Confinement:
    """How a program of a model is run.

    unsafe: without a sandbox, under resource limits alone. seconds_per_test, seconds_per_answer: of computing, for one
    test and for all. memory_mb: of address space for each process; the whole tree of processes may hold little more.
    """

    unsafe: bool = False
    seconds_per_test: float = 10.0
    seconds_per_answer: float = 100.0
    memory_mb: int = 1024

    @property
    def memory_bytes(self) -> int:
        """memory_mb in bytes."""
        return self.memory_mb << 20


USUAL = Confinement()  # what a recipe that says nothing has
