"""Programs that models write, run where they can do no harm.

A program runs under bubblewrap: no network, no file of this machine but Python's own, a private folder, no privilege,
limits on time, memory, processes, files and output; it ends with all that descends from it. Without bubblewrap nothing
runs, unless the recipe says `unsafe`.

| module | what it is |
| --- | --- |
| `confinement` | the limits, and those of them that a recipe sets |
| `session` | a sandbox that is open: jobs in, what came of them out |
| `bubblewrap`, `seccomp` | what is inside, what is refused |
| `process_tree` | the memory of all inside, from outside |
| `inside` | what runs inside |

Left out: cgroups. Where they can be written to depends on the machine; the limits here hold on every one.
"""

from dasd_resources.sandbox.confinement import USUAL, Confinement
from dasd_resources.sandbox.session import Ended, Job, NoSandbox, Session, sandbox_fault

__all__ = ["USUAL", "Confinement", "Ended", "Job", "NoSandbox", "Session", "sandbox_fault"]
