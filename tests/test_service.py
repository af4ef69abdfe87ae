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
from random import Random

import dagster as dg
import psutil
import pytest
from conftest import Project, prompt_rows
from reliability import record
from test_drill import (
    LOOPBACK,
    check_nothing_is_left,
    check_same,
    free_port,
    has_all,
    open_ports,
    recipe_file,
    served,
    session,
    undisturbed_run,
    wait_until,
    wait_until_settled,
)

from dasd_assets.cli import main
from dasd_assets.commands.service_end import end_service
from dasd_assets.commands.ui import PortTaken, _require_free
from dasd_assets.records.dagster_internals import CODE_SERVERS, DAEMON, WEB_UI
from dasd_assets.service.one_service import SERVICE, ServiceRunning, address_of, hold, last_address, starts_a_service
from dasd_assets.service.recovery import ABANDONED
from dasd_resources.home import HISTORY_VARIABLE, SERVICE_LOCK, WORKSPACE, prepare_home
from dasd_resources.recipe import Recipe

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
    assert (tmp_path / SERVICE_LOCK).read_text() != ""
    assert hold(tmp_path, "dasd ui", "") in (tmp_path / SERVICE_LOCK).read_text()


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
    assert address_of(["dagster", "dev", "-h", "::1"]) == "http://[::1]:3000"


@pytest.mark.parametrize(
    ("host", "address", "warns"),
    [
        ("localhost", "http://localhost", False),
        ("0.0.0.0", "http://0.0.0.0", True),
        ("2001:db8::1", "http://[2001:db8::1]", True),  # no machine has it
    ],
)
def test_a_host_that_others_reach_is_warned_of(
    host: str,
    address: str,
    warns: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("DASD_HOME", str(tmp_path))
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        assert main(["ui", "--host", host, "--port", str(port)]) != 0  # the port is taken: nothing is started
    assert last_address(tmp_path) == f"{address}:{port}"
    assert ("lets others on the network use it" in capsys.readouterr().err) is warns


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
    own = ("DAGSTER", "DASD")
    clean = {n: value for n, value in os.environ.items() if n == HISTORY_VARIABLE or not n.startswith(own)}
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
    prepare_home(tmp_path / "home", None)
    check_one_service(tmp_path / "home")


def check_one_service(home: Path) -> None:
    port = free_port()
    service = ui(home, port)
    with ended_at_last(service):
        wait_for(port, service)
        members = psutil.Process(service.pid).children(recursive=True)
        commands = [" ".join(member.cmdline()) for member in members]
        assert all(any(word in command for command in commands) for word in (*WEB_UI, *DAEMON, *CODE_SERVERS))
        ports = open_ports([service.pid, *(member.pid for member in members)])
        assert ports and ports <= LOOPBACK
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


@pytest.mark.drill
def test_as_the_first_process_of_a_container_it_ends_within_dockers_ten_seconds(tmp_path: Path) -> None:
    namespace = ["unshare", "--pid", "--fork", "--mount-proc"]
    if subprocess.run([*namespace, "true"], capture_output=True, check=False).returncode:
        pytest.skip("a process namespace needs root")
    prepare_home(tmp_path, None)
    port = free_port()
    command = [*namespace, sys.executable, "-m", "dasd_assets.cli", "ui", "--port", str(port)]
    container = subprocess.Popen(command, env=environment(tmp_path), stderr=subprocess.PIPE, text=True)
    with ended_at_last(container):
        wait_for(port, container)
        [first] = psutil.Process(container.pid).children()
        first.terminate()
        _, errors = container.communicate(timeout=10)
    assert container.returncode == 0
    assert "Traceback" not in errors and errors.endswith("the runs that were under way\n")


@pytest.mark.drill
def test_a_service_that_is_stopped_while_batches_land_goes_on_and_nothing_counts(tmp_path: Path, tiny: Recipe) -> None:
    seed, num_stops = 6, 6
    rng = Random(seed)
    project, landed = Project(tmp_path / "home", tiny), {f"b{n}.jsonl": prompt_rows(2 * n, 2 * n + 2) for n in range(3)}
    with served(project, recipe_file(tmp_path, tiny, None)) as service:
        for number in range(num_stops):
            if number % 2 == 0:
                name = f"b{number // 2}.jsonl"
                project.land(name, landed[name])
            wait_until("a run worker", service.workers, service, 600)
            time.sleep(rng.uniform(0, 6))
            assert service.process is not None
            began, leader = time.monotonic(), service.process.pid
            end_service(service.process)
            assert time.monotonic() - began < 20
            assert session(leader) == []
            service.start()
        wait_until_settled(lambda: has_all(project, len(landed)), service, 1200)
    with project.instance() as instance:
        failed = instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.FAILURE]))
        assert all(run.tags.get(ABANDONED) == run.run_id for run in failed)
    undisturbed = undisturbed_run(tmp_path, tiny, landed)
    project.run()
    check_same(project, undisturbed)
    check_nothing_is_left(project)
    record(
        "signals: service",
        faults="the service is stopped at a random moment of a run",
        seed=seed,
        tried=num_stops,
        survived=num_stops,
        detected=0,
        silent=0,
        command="pytest -m drill tests/test_service.py -s",
    )
