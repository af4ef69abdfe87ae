"""A step of a training finds the memory of the step before again, instead of asking the system for it."""

import ctypes
import platform
import subprocess
import sys
from types import SimpleNamespace

import pytest

from dasd_resources.sft.freed_memory import M_MMAP_THRESHOLD, M_TOP_PAD, M_TRIM_THRESHOLD, keep_freed_memory

STEPS = """
import resource
{begin}
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    bytearray(64 * 2**20)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def page_faults(begin: str) -> int:
    code = STEPS.format(begin=begin)
    return int(subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, check=True).stdout)


@pytest.mark.parametrize(
    ("most", "taken"), [(2**40, 2**30), (2**25, 2**25), (0, None)], ids=["now", "before 2.35", "none"]
)
def test_an_older_glibc_keeps_what_it_lets_keep(monkeypatch: pytest.MonkeyPatch, most: int, taken: int | None) -> None:
    done = list[tuple[int, int]]()

    def mallopt(setting: int, value: int) -> int:
        if setting == M_MMAP_THRESHOLD and value > most:
            return 0
        done.append((setting, value))
        return 1

    monkeypatch.setattr(ctypes, "CDLL", lambda _: SimpleNamespace(mallopt=mallopt))
    keep_freed_memory()
    assert done == ([(M_MMAP_THRESHOLD, taken), (M_TRIM_THRESHOLD, 2**30), (M_TOP_PAD, 2**26)] if taken else [])


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="mallopt is glibc's")
def test_what_a_step_has_freed_is_not_asked_for_again() -> None:
    kept = page_faults("from dasd_resources.sft.freed_memory import keep_freed_memory; keep_freed_memory()")
    assert page_faults("") > 5 * kept
