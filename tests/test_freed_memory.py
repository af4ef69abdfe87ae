"""A step of a training finds the memory of the step before again, instead of asking the system for it."""

import platform
import subprocess
import sys

import pytest

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


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="mallopt is glibc's")
def test_what_a_step_has_freed_is_not_asked_for_again() -> None:
    kept = page_faults("from dasd_resources.sft.freed_memory import keep_freed_memory; keep_freed_memory()")
    assert page_faults("") > 5 * kept
