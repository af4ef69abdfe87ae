"""Notices that a service has lost its code, of which Dagster takes no notice: it goes on, and nothing is ever made.

`dagster dev` ends when its web UI or its daemon does, but not when the process that holds the code location is killed:
by the system, if memory runs out, as it is the largest. It does not start another, and every sensor fails from then on.
"""

import subprocess

from dasd_assets.commands.service_end import is_of, members
from dasd_assets.records.dagster_internals import CODE_SERVERS

LOOK_SECONDS = 5.0
LOOKS = 2  # at which it must be missing: the web UI's button "Reload" replaces the process
LOOKS_AT_START = 24  # a busy machine takes long to begin


def wait_for_end(dagster: "subprocess.Popen[bytes]", look_seconds: float = LOOK_SECONDS) -> int | None:
    """Wait until `dagster dev` ends, and return its exit code; None as soon as its code has been lost."""
    num_missing, allowed = 0, LOOKS_AT_START
    while num_missing < allowed:
        try:
            return dagster.wait(look_seconds)
        except subprocess.TimeoutExpired:
            found = members(dagster.pid)
        if all(any(is_of(one, (kind,)) for one in found) for kind in CODE_SERVERS):
            num_missing, allowed = 0, LOOKS
        else:
            num_missing += 1
    return None
