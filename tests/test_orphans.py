"""What is left running when a run's process is killed: nothing."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_step_ends_with_its_runs_process_and_that_outlives_its_starter(tmp_path: Path) -> None:
    home, log = tmp_path / "home", tmp_path / "log"
    home.mkdir()
    with log.open("wb") as output:
        command = [sys.executable, str(Path(__file__).with_name("orphan_run.py")), str(home)]
        starter = subprocess.Popen(command, stdout=output, stderr=output)
        try:
            starter.wait(120)
        finally:
            starter.kill()
    assert (home / "processes").exists(), log.read_text()[-3000:]
    worker, step = map(int, (home / "processes").read_text().split())
    assert worker not in (starter.pid, os.getpid())
    try:
        time.sleep(1)
        assert is_alive(worker) and is_alive(step)
        os.kill(worker, signal.SIGKILL)
        ends = time.monotonic() + 10
        while is_alive(step):
            assert time.monotonic() < ends, "the step goes on without its run"
            time.sleep(0.05)
    finally:
        for pid in (worker, step):
            if is_alive(pid):
                os.kill(pid, signal.SIGKILL)
