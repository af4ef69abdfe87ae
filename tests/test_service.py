"""The service as a whole: one per home, and a stop that leaves nothing behind."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from test_drill import free_port

from dasd_assets.commands.ui import PortTaken, _require_free
from dasd_assets.service.one_service import LOCK, SERVICE, ServiceRunning, address_of, hold, starts_a_service
from dasd_resources.home import WORKSPACE, prepare_home

HOLD = "import sys; from pathlib import Path; from dasd_assets.service.one_service import hold; "


@pytest.fixture(autouse=True)
def of_no_service(monkeypatch: pytest.MonkeyPatch) -> None:
    """`hold` sets the variable for the service's other processes; it is put back at the end."""
    monkeypatch.setenv(SERVICE, "")
    monkeypatch.delenv(SERVICE)


def test_a_lock_is_held_by_the_living_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = f"{HOLD}print(hold(Path(sys.argv[1]), 'dagster dev', 'http://127.0.0.1:3000'), flush=True); sys.stdin.read()"
    other = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert other.stdout is not None
    service = other.stdout.readline().strip()
    said = rf"dagster dev \(pid {other.pid} on {socket.gethostname()}\), http://127.0.0.1:3000, since 20"
    with pytest.raises(ServiceRunning, match=said):
        hold(tmp_path, "dasd ui", "http://127.0.0.1:3001")
    monkeypatch.setenv(SERVICE, service)
    assert hold(tmp_path, "dagster-daemon", "") == service  # a part of it
    other.kill()
    other.wait()
    monkeypatch.setenv(SERVICE, "another")
    with pytest.raises(ServiceRunning):  # its daemon, which is this process, lives
        hold(tmp_path, "dasd ui", "http://127.0.0.1:3001")


def test_a_lock_of_the_dead_is_taken(tmp_path: Path) -> None:
    code = f"{HOLD}hold(Path(sys.argv[1]), 'dasd ui', ''); import os; os.kill(os.getpid(), 9)"
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False)
    assert (tmp_path / LOCK).read_text() != ""
    assert hold(tmp_path, "dasd ui", "") in (tmp_path / LOCK).read_text()


@pytest.mark.parametrize(
    ("arguments", "starts"),
    [
        (["/x/bin/dagster", "dev", "--port", "3001"], True),
        (["/x/dagster/__main__.py", "dev"], True),
        (["/x/bin/dg", "dev"], True),
        (["/x/dagster/_daemon/__main__.py", "run"], True),
        (["/x/bin/dagster-daemon", "run", "-w", "workspace.yaml"], True),
        (["/x/dagster/__main__.py", "api", "grpc"], False),
        (["/x/dagster_webserver/__main__.py", "--port", "3000"], False),
        (["/x/bin/dasd", "run"], False),
        (["-c"], False),
    ],
)
def test_what_starts_a_service(arguments: list[str], starts: bool) -> None:
    assert starts_a_service(arguments) is starts


def test_the_address_is_that_of_the_command_line() -> None:
    assert address_of(["dagster", "dev", "-p", "3001", "--host", "0.0.0.0"]) == "http://0.0.0.0:3001"
    assert address_of(["dagster", "dev"]) == "http://127.0.0.1:3000"


def test_a_port_in_use_is_said_before_anything_starts() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(PortTaken, match=f"port {port} of 127.0.0.1: Address already in use") as raised:
            _require_free("127.0.0.1", port)
    assert raised.value.exit_code == 2
    _require_free("127.0.0.1", port)


def environment(home: Path) -> dict[str, str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("DAGSTER", "DASD"))}
    return {**clean, "PYTHONPATH": os.pathsep.join(sys.path), "DASD_HOME": str(home), "DAGSTER_HOME": f"{home}/dagster"}


def ui(home: Path, port: int) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "dasd_assets.cli", "ui", "--port", str(port)]
    return subprocess.Popen(command, env=environment(home), stderr=subprocess.PIPE, text=True)


def wait_for(port: int, service: "subprocess.Popen[str]") -> None:
    ends = time.monotonic() + 120
    while True:
        assert service.poll() is None and time.monotonic() < ends
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/server_info", timeout=5):
                return
        except OSError:
            time.sleep(0.2)


@contextmanager
def ended_at_last(service: "subprocess.Popen[str]") -> Iterator[None]:
    try:
        yield
    finally:
        if service.poll() is None:
            service.terminate()
            service.wait(60)


def test_a_second_service_is_refused_and_a_stop_leaves_nothing(tmp_path: Path) -> None:
    home, port = tmp_path / "home", free_port()
    prepare_home(home, None)
    service = ui(home, port)
    with ended_at_last(service):
        wait_for(port, service)
        members = psutil.Process(service.pid).children(recursive=True)
        assert any("dagster._daemon" in " ".join(member.cmdline()) for member in members)
        holder = f"dasd ui (pid {service.pid} on {socket.gethostname()}), http://127.0.0.1:{port}, since 20"
        said = f"{home} has a service already: {holder}"
        second = ui(home, free_port())
        assert (second.wait(60), second.stderr is not None and said in second.stderr.read()) == (1, True)
        dev = [sys.executable, "-m", "dagster", "dev", "--workspace", str(WORKSPACE), "--port", str(free_port())]
        third = subprocess.run(dev, env=environment(home), capture_output=True, text=True, timeout=60, check=False)
        assert third.returncode == 1 and said in third.stderr and "Traceback" not in third.stderr
        service.send_signal(signal.SIGTERM)
        began = time.monotonic()
        _, errors = service.communicate(timeout=30)
        assert time.monotonic() - began < 20
    assert service.returncode == 0
    assert errors.endswith("dasd: stopped; the next start continues the runs that were under way\n")
    assert "Traceback" not in errors
    assert [member for member in members if member.is_running() and member.status() != psutil.STATUS_ZOMBIE] == []
    _require_free("127.0.0.1", port)
