"""A service that has lost its code or its daemon, by processes that bear the names of Dagster's."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import pytest
from sqlalchemy.exc import OperationalError

from dasd_assets.commands import ui
from dasd_assets.commands.service_end import end_service, is_of, members
from dasd_assets.commands.service_watch import CODE_LOST, DAEMON_LOST, LOOKS_WITHOUT_HEARTBEAT, wait_for_end
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


def beating() -> Callable[[], float | None]:
    return count().__next__


def test_a_service_that_ends_by_itself_has_its_own_code() -> None:
    service = dagster(0.5)
    assert wait_for_end(service, beating(), look_seconds=0.1) == 0
    end_service(service)


def test_a_service_whose_code_is_killed_has_lost_it() -> None:
    service = dagster(100)
    found: list[int | str] = []
    waiting = threading.Thread(target=lambda: found.append(wait_for_end(service, beating(), look_seconds=0.1)))
    waiting.start()
    while not (codes := [one for one in members(service.pid) if is_of(one, ("api grpc",))]):
        time.sleep(0.05)
    threading.Event().wait(0.5)
    assert waiting.is_alive()
    os.kill(codes[0].pid, signal.SIGKILL)
    waiting.join(20)
    assert found == [CODE_LOST]
    end_service(service)
    assert members(service.pid) == []


def test_a_service_whose_daemon_is_silent_has_lost_it() -> None:
    service, beats = dagster(100), iter([1.0, 2.0, 3.0])
    looks: list[float] = []

    def heartbeat() -> float:
        looks.append(next(beats, 3.0))
        return looks[-1]

    assert wait_for_end(service, heartbeat, look_seconds=0.02) == DAEMON_LOST
    assert len(looks) == 3 + LOOKS_WITHOUT_HEARTBEAT
    end_service(service)


def test_a_look_that_finds_no_heartbeat_is_a_silent_one() -> None:
    service = dagster(100)
    beats: Iterator[float | None] = iter([1.0, *[None, 1.0] * LOOKS_WITHOUT_HEARTBEAT])
    assert wait_for_end(service, beats.__next__, look_seconds=0.02) == DAEMON_LOST
    end_service(service)


def away(*_: object) -> float | None:
    raise OperationalError("SELECT", {}, Exception("the database restarts"))


def test_while_dagsters_history_cannot_be_read_no_heartbeat_is_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ui, "open_instance", away)
    assert ui._heartbeat(tmp_path) is None


def test_nothing_is_left_of_a_service_whose_watch_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    service = dagster(100)
    monkeypatch.setattr(ui, "_start", lambda *_: service)
    monkeypatch.setattr(ui, "_heartbeat", away)
    with pytest.raises(OperationalError):
        ui._serve("127.0.0.1", 0, {}, tmp_path)
    assert members(service.pid) == []
