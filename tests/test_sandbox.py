"""What a program of a model tries, in a real sandbox: none of it works, and its end is that of all it started.

These tests fail where bubblewrap is missing or may make no namespaces: docs/verifiers.md says what a machine must
allow.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import pytest
from reliability import record

from dasd_resources.sandbox import Confinement, Ended, NoSandbox, Session, sandbox_fault
from dasd_resources.sandbox.seccomp import ARCHITECTURES, seccomp_filter

pytestmark = pytest.mark.sandbox

Found = TypeVar("Found")
ROOT = Path(__file__).parents[1]
SMALL = Confinement(memory_mb=192)
SHORT = Confinement(seconds_per_test=0.25, memory_mb=192)
PATIENT = replace(SHORT, seconds_per_test=5.0)  # for what must not end by its time on a busy machine
SECRET = "sk-secret-of-this-environment"


@pytest.fixture(scope="module", autouse=True)
def _works() -> None:
    fault = sandbox_fault(Confinement())
    assert fault is None, f"this machine has no sandbox, so nothing here can be shown: {fault}"


@pytest.fixture(scope="module")
def shared() -> Iterator[Session]:
    """One sandbox for what leaves it whole."""
    with Session(SMALL) as session:
        yield session


def ran(program: str, session: Session, given: str = "") -> Ended:
    return session.run({"kind": "program", "program": program, "input": given})


def printed(program: str, session: Session) -> str:
    found = ran(program, session)
    assert (found.status, found.codes) == ("ended", (0,)), found
    return found.output.decode()


def test_a_program_runs_with_its_input_and_is_seen_to_end(shared: Session) -> None:
    assert ran("print(input() * 2)", shared, "ab\n") == Ended("ended", (0,), b"abab\n", "", pytest.approx(0, abs=0.4))
    failed = ran("print(1)\nraise KeyError('k')", shared)
    assert (failed.codes, failed.output) == ((1,), b"1\n")
    assert failed.errors.endswith("KeyError: 'k'\n")
    assert ran("import sys\nsys.exit('no')", shared).errors == "no\n"
    assert ran("exit(3)", shared).codes == (3,)
    threaded = "import threading, atexit\natexit.register(print, 2)\nthreading.Thread(target=print, args=[1]).start()"
    assert ran(threaded, shared).output == b"1\n2\n"


# A program that tries something and says whether it was kept from it. `blocked` is what any attempt ends in.
ATTEMPTS = {
    "read_the_home": "open({home!r} + '/secret.txt').read()",
    "list_the_warehouse": "import os; os.listdir({home!r})",
    "read_etc_passwd": "open('/etc/passwd').read()",
    "read_this_repository": "open({root!r} + '/pyproject.toml').read()",
    "import_an_installed_package": "import numpy",
    "read_others_memory": "open('/proc/1/mem', 'rb').read(1)",
    "read_others_environment": "open('/proc/1/environ', 'rb').read(1)",
    "write_into_the_home": "open({home!r} + '/mine.txt', 'w').write('x')",
    "write_into_the_root": "open('/mine.txt', 'w').write('x')",
    "write_into_the_standard_library": "import os; open(os.__file__, 'a').write('x')",
    "write_our_own_code": "open('/sandbox/dasd_resources/sandbox/inside/jobs.py', 'a').write('x')",
    "make_a_device": "import os, stat; os.mknod('/tmp/sda', 0o600 | stat.S_IFBLK, os.makedev(8, 0))",
    "follow_a_link_out": "import os; os.symlink({home!r}, '/tmp/out'); os.listdir('/tmp/out')",
    "link_a_file_in": "import os; os.link({home!r} + '/secret.txt', '/tmp/in')",
    "open_a_socket": "import socket; socket.socket()",
    "connect_to_localhost": "import socket; socket.create_connection(('127.0.0.1', {port}), timeout=1)",
    "resolve_a_name": "import socket; socket.getaddrinfo('localhost', 80)[0]; socket.socket(socket.AF_UNIX)",
    "trace_a_process": "{libc}; assert libc.ptrace(16, 1, 0, 0) == 0",
    "write_to_a_process": "{libc}; assert libc.process_vm_writev(1, 0, 0, 0, 0, 0) == 0",
    "make_a_namespace": "{libc}; assert libc.unshare(0x10000000) == 0",
    "clone_into_a_namespace": "{libc}; assert libc.syscall({clone}, 0x10000011, 0, 0, 0, 0) >= 0",
    "mount_something": "{libc}; assert libc.mount(b'none', b'/tmp', b'tmpfs', 0, 0) == 0",
    "become_root": "import os; os.setuid(0)",
    "leave_memory_outside_its_limit": "{libc}; assert libc.memfd_create(b'm', 0) >= 0",
    "raise_its_own_limit": "import resource as r; r.setrlimit(r.RLIMIT_AS, (1 << 40, 1 << 40))",
    "signal_outside": "import os; os.kill({pid}, 0)",
    "open_shared_memory": "{libc}; assert libc.shmget(1, 4096, 0o1600) >= 0",
    "change_the_clock": "import time; time.clock_settime(time.CLOCK_REALTIME, 0)",
    "change_the_host_name": "import socket; socket.sethostname('mine')",
    "reach_ctypes_of_the_supervisor": "import os; os.open('/proc/1/fd/0', os.O_RDONLY)",
}
LIBC = "import ctypes; libc = ctypes.CDLL(None, use_errno=True)"


def test_no_attempt_to_reach_out_succeeds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DASD_API_KEY", SECRET)
    (tmp_path / "secret.txt").write_text(SECRET)
    clone = next(a.clone for machine, a in ARCHITECTURES.items() if machine == os.uname().machine)
    with socket.create_server(("127.0.0.1", 0)) as server, Session(SMALL) as session:
        here = {"home": str(tmp_path), "root": str(ROOT), "pid": os.getpid(), "port": server.getsockname()[1]}
        succeeded = []
        for name, attempt in ATTEMPTS.items():
            code = attempt.format(**here, libc=LIBC, clone=clone)
            program = f"try:\n exec({code!r})\nexcept BaseException as error:\n print('blocked', type(error).__name__)"
            if not printed(program, session).startswith("blocked"):
                succeeded.append(name)
        assert succeeded == []
        server.settimeout(0)
        with pytest.raises(BlockingIOError):
            server.accept()
    assert sorted(file.name for file in tmp_path.iterdir()) == ["secret.txt"]


HARMLESS = ("read_the_home", "read_etc_passwd", "write_into_the_home", "open_a_socket", "connect_to_localhost")


@pytest.mark.parametrize("name", HARMLESS)
def test_outside_a_sandbox_the_same_attempts_succeed(name: str, tmp_path: Path) -> None:
    """So the test above can fail."""
    (tmp_path / "secret.txt").write_text(SECRET)
    with socket.create_server(("127.0.0.1", 0)) as server, Session(replace(SMALL, unsafe=True)) as session:
        code = ATTEMPTS[name].format(home=str(tmp_path), port=server.getsockname()[1])
        assert printed(f"{code}\nprint('out')", session) == "out\n"


def test_a_program_sees_nothing_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DASD_API_KEY", SECRET)
    look = """
import os, socket, json
files = [os.path.join(f, n) for f, _, names in os.walk('/') for n in names if 'lib' not in f]
seen = {'uid': os.getuid(), 'groups': os.getgroups(), 'home': os.environ['HOME'], 'environment': sorted(os.environ),
        'pid': os.getpid(), 'host': socket.gethostname(), 'here': os.getcwd(), 'files': files}
print(json.dumps(seen))
"""
    with Session(SMALL) as session:
        seen = json.loads(printed(look, session))
    assert seen["uid"] != 0
    assert seen["home"] == seen["here"] == "/tmp" and seen["host"] == "sandbox"
    assert set(seen["environment"]) <= {
        *{"HOME", "LANG", "LD_LIBRARY_PATH", "OPENBLAS_NUM_THREADS", "PATH", "PWD", "PYTHONHASHSEED"}
    }
    assert {f for f in seen["files"] if not f.startswith(("/dev/", "/sandbox/dasd_resources/sandbox/inside/"))} == {
        str(Path(sys.executable).resolve())
    }


GREEDY = {
    "computing_on": ("while True: pass", {"timed_out"}),
    "sleeping_on": ("import time; time.sleep(600)", {"timed_out"}),
    "waiting_for_nothing": ("import signal; signal.pause()", {"timed_out"}),
    "ignoring_every_signal": (
        "import signal\nfor s in range(1, 65):\n try: signal.signal(s, signal.SIG_IGN)\n except OSError: pass\n"
        "while True: pass",
        {"timed_out"},
    ),
    "ten_gigabytes": ("x = bytearray(10 * 2**30)", {"out_of_memory"}),
    "memory_bit_by_bit": ("x = []\nwhile True: x.append(bytearray(2**20))", {"out_of_memory"}),
    "endless_output": ("while True: print('x' * 100_000)", {"too_much_output"}),
    "endless_errors": ("import sys\nwhile True: sys.stderr.write('x' * 100_000)", {"timed_out"}),
    "one_endless_line": ("import sys\nwhile True: sys.stdout.write('x' * 100_000)", {"too_much_output"}),
    "many_files": ("i = 0\nwhile True:\n open(f'/tmp/{i}', 'w').close(); i += 1", {"too_much_output", "timed_out"}),
    "fork_bomb": ("import os\nwhile True:\n try: os.fork()\n except OSError: pass", {"timed_out"}),
    "thread_bomb": (
        "import threading, time\nwhile True:\n try: threading.Thread(target=time.sleep, args=[60]).start()\n"
        " except RuntimeError: pass",
        {"timed_out"},
    ),
}


@pytest.mark.parametrize("name", GREEDY)
def test_what_is_endless_ends_and_the_sandbox_serves_the_next_program(name: str) -> None:
    program, statuses = GREEDY[name]
    with Session(SHORT if "timed_out" in statuses else PATIENT) as session:
        assert ran(program, session).status in statuses
        assert printed("print(6 * 7)", session) == "42\n"


def test_a_full_disk_is_the_programs_own_and_bounded(shared: Session) -> None:
    program = """
import os
written = 0
for i in range(100):
    with open(f'/tmp/big{i}', 'wb', buffering=0) as file:
        try: written += file.write(bytes(4 << 20))
        except OSError as error: print(written >> 20, error.strerror); break
for i in range(100):
    try: os.remove(f'/tmp/big{i}')
    except OSError: pass
"""
    written, _, why = printed(program, shared).partition(" ")
    assert int(written) < 80 and why == "No space left on device\n"


def test_memory_of_many_processes_is_bounded_as_a_whole() -> None:
    """Each within its own limit, all together not: the watch outside ends the sandbox."""
    program = """
import os, time
for _ in range(24):
    if os.fork() == 0: break
x = bytearray(100 << 20)
x[::4096] = b'1' * len(x[::4096])
time.sleep(60)
"""
    with Session(SMALL) as session:
        found = ran(program, session)
        assert found.status == "out_of_memory"
        assert not session.usable


def test_what_a_program_leaves_running_ends_with_it(shared: Session) -> None:
    """A daemon of two forks in a session of its own, which ignores signals, does not see the next program."""
    daemon = """
import os, signal, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        for s in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT): signal.signal(s, signal.SIG_IGN)
        while True:
            open('/tmp/alive', 'a').write('x')
            time.sleep(0.001)
    os._exit(0)
time.sleep(0.05)
print('left')
"""
    assert printed(daemon, shared) == "left\n"
    count = """
import os
others = 0
for pid in set(range(2, 2000)) - {os.getpid()}:
    try: os.kill(pid, 0)
    except OSError: continue
    others += 1
print(others)
"""
    assert printed(count, shared) == "0\n"


def test_neither_parent_nor_supervisor_can_be_ended_or_stopped(shared: Session) -> None:
    kill = """
import os
for pid in (os.getppid(), 1):
    for number in (9, 19, 15, 2): os.kill(pid, number)
print('sent')
"""
    assert printed(kill, shared) == "sent\n"
    assert printed("print(6 * 7)", shared) == "42\n"


def test_invalid_bytes_come_out_as_they_are(shared: Session) -> None:
    assert ran(r"import sys; sys.stdout.buffer.write(b'\xff\xfe\0')", shared).output == b"\xff\xfe\0"
    assert ran("import sys; print(sys.stdin.read())", shared, "\udcff").output == b"\xff\n"


def test_all_of_it_ends_when_this_process_is_killed(tmp_path: Path) -> None:
    """SIGKILL to the judge leaves nobody behind, whatever the program has done to stay."""
    script = """
import sys
from dasd_resources.sandbox import Confinement, Session
session = Session(Confinement(seconds_per_test=60))
print(session.process_id, flush=True)
program = "import os, time\\nos.fork()\\nif not os.fork(): os.setsid()\\ntime.sleep(600)"
session.run({"kind": "program", "program": program, "input": ""})
"""
    judge = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(ROOT)}, text=True
    )
    assert judge.stdout is not None
    outer = int(judge.stdout.readline())
    inside = until(lambda: found if len(found := tree(outer)[1:]) > 4 else [])  # its first process, and four programs
    assert inside
    judge.send_signal(signal.SIGKILL)
    judge.wait()
    judge.stdout.close()
    assert until(lambda: not [pid for pid in (outer, *inside) if Path(f"/proc/{pid}").exists()])


def tree(pid: int) -> list[int]:
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return []
    return [pid, *(below for child in children for below in tree(int(child)))]


def until(look: Callable[[], Found]) -> Found:
    """What the look finds at last, within half a minute."""
    deadline = time.monotonic() + 30
    while not (found := look()) and time.monotonic() < deadline:
        time.sleep(0.02)
    return found


def test_without_bubblewrap_nothing_runs_and_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(NoSandbox, match=r"bubblewrap is not there: install the package bubblewrap .*sandbox: unsafe"):
        Session(SMALL)
    assert sandbox_fault(SMALL) is not None


def test_unsafe_runs_without_one_under_limits_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    monkeypatch.setenv("DASD_API_KEY", SECRET)
    with Session(Confinement(unsafe=True, seconds_per_test=0.25, memory_mb=256)) as session:
        assert printed(
            "import os; print('DASD_API_KEY' in os.environ, os.path.basename(os.getcwd())[:4])", session
        ) == ("False dasd\n")
        assert ran("x = bytearray(2**30)", session).status == "out_of_memory"
        assert ran("while True: pass", session).status == "timed_out"
        assert printed("print(42)", session) == "42\n"


def test_a_sandbox_that_cannot_start_is_no_verdict() -> None:
    with pytest.raises(
        NoSandbox, match="the sandbox ended by itself with code 1: ModuleNotFoundError: No module named"
    ):
        Session(SMALL, preload=("no_such_module",))


def test_a_sandbox_that_starts_late_is_no_verdict() -> None:
    with pytest.raises(NoSandbox, match="did not start within 0 s; run again when the machine is less busy"):
        Session(replace(SMALL, unsafe=True), start_seconds=0.0)


def test_the_filter_of_system_calls_is_known_for_two_machines() -> None:
    filters = {machine: seccomp_filter(machine) for machine in ARCHITECTURES}
    assert sorted(filters) == ["aarch64", "x86_64"]
    assert all(len(one) % 8 == 0 and len(one) // 8 < 4096 for one in filters.values())
    with pytest.raises(KeyError):
        seccomp_filter("riscv64")


@pytest.mark.drill
def test_drill_of_escapes() -> None:
    """Every attempt and every endless program again and again in one sandbox, which serves the next each time."""
    rounds, contained, silent = 3, 0, 0
    greedy = [program for program, _ in GREEDY.values()]
    here = {"home": str(ROOT), "root": str(ROOT), "pid": os.getpid(), "port": 9, "clone": 56}
    attempts = [f"{code.format(**here, libc=LIBC)}\nprint('out')" for code in ATTEMPTS.values()]
    for _ in range(rounds):
        with Session(Confinement(seconds_per_test=1.0, memory_mb=256)) as session:
            for program in (*attempts, *greedy):
                escaped = ran(program, session).output.endswith(b"out\n")
                served = ran("print(42)", session).output == b"42\n"
                contained += served and not escaped
                silent += escaped or not served
    record(
        "escapes",
        faults="programs that reach out, run on or take all they can get",
        seed=None,
        tried=contained + silent,
        survived=contained,
        detected=0,
        silent=silent,
        command="pytest -m drill tests/test_sandbox.py",
    )
    assert silent == 0
