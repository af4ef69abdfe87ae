"""A service whose code was killed, by processes that bear the names of Dagster's."""

import os
import signal
import subprocess
import sys
import threading
import time

from dasd_assets.commands.service_end import end_service, is_of, members
from dasd_assets.commands.service_watch import wait_for_end
from dasd_assets.records.dagster_internals import CODE_SERVERS

PART = "import time; time.sleep(100)"
DAGSTER = """
import os, subprocess, sys, time
for name in os.environ["NAMES"].split(","):
    subprocess.Popen([sys.executable, "-c", os.environ["PART"], *name.split()])
time.sleep(float(sys.argv[1]))
"""


def dagster(seconds: float) -> "subprocess.Popen[bytes]":
    names = {**os.environ, "NAMES": ",".join(CODE_SERVERS), "PART": PART}
    return subprocess.Popen([sys.executable, "-c", DAGSTER, str(seconds)], env=names, start_new_session=True)


def test_a_service_that_ends_by_itself_has_its_own_code() -> None:
    service = dagster(0.5)
    assert wait_for_end(service, look_seconds=0.1) == 0
    end_service(service)


def test_a_service_whose_code_is_killed_has_lost_it() -> None:
    service = dagster(100)
    found: list[int | None] = []
    waiting = threading.Thread(target=lambda: found.append(wait_for_end(service, look_seconds=0.1)))
    waiting.start()
    while not (codes := [one for one in members(service.pid) if is_of(one, ("api grpc",))]):
        time.sleep(0.05)
    threading.Event().wait(0.5)
    assert waiting.is_alive()
    os.kill(codes[0].pid, signal.SIGKILL)
    waiting.join(20)
    assert found == [None]
    end_service(service)
    assert members(service.pid) == []
