"""One service per home: two of them would both look at sensors and schedules, and begin every run twice.

A service holds a lock on a file of the home as long as any of the processes that could do so lives: `dasd ui`,
`dagster dev` and the daemon. The system releases it however they end. `dasd ui` takes it itself; for `dagster dev`,
`dg dev` and `dagster-daemon`, it is taken by the scheduler that `dagster.yaml` names, which Dagster makes in each of
its processes before anything else. The file says who holds the lock.
"""

import fcntl
import json
import os
import socket
import sys
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any, Self

import dagster as dg

from dasd_assets.records.dagster_internals import ConfigurableClassData, DagsterDaemonScheduler
from dasd_resources.errors import UserError
from dasd_resources.home import SERVICE_LOCK, home_of
from dasd_resources.web_address import LOOPBACK, web_address

SERVICE = "DASD_SERVICE"  # environment variable: the id of the service that a process belongs to
STARTERS = {"dagster": "dev", "dg": "dev", "dagster-daemon": "run", "_daemon": "run"}  # program -> its command
_held: list[int] = []  # file descriptors, until the process ends


class ServiceRunning(UserError):
    """Another service has the home; the message says which."""


@dataclass(frozen=True)
class Holder:
    """Who started a service, where, and since when."""

    service: str
    command: str
    pid: int
    host: str
    address: str
    since: str

    @property
    def said(self) -> str:
        return f"{self.command} (pid {self.pid} on {self.host}), {self.address}, since {self.since}"


def hold(home: Path, command: str, address: str) -> str:
    """Take the home's lock until this process ends, or share it with the service that this process belongs to.

    Returns the service's id, which its other processes must find in the environment variable SERVICE. Raises
    ServiceRunning if another service has the lock.
    """
    home.mkdir(parents=True, exist_ok=True)
    lock = os.open(home / SERVICE_LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    ours, holder = os.environ.get(SERVICE), _holder(home)
    try:
        if ours is None or holder is None or holder.service != ours:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            ours = _write(lock, command, address)
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        raise _running(home) from None
    _held.append(lock)
    os.environ[SERVICE] = ours
    return ours


def starts_queued_runs(instance: dg.DagsterInstance, home: Path) -> bool:
    """Whether a service is there to begin what is queued; taken for granted under another `dagster.yaml` than ours."""
    if not isinstance(instance.scheduler, OneService):
        return True
    try:
        with without_service(home):
            return False
    except ServiceRunning:
        return True


@contextmanager
def without_service(home: Path) -> Iterator[None]:
    """No service has the home, and none gets it while the block lasts. Raises ServiceRunning."""
    with (home / SERVICE_LOCK).open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise _running(home) from None
        yield


def _running(home: Path) -> ServiceRunning:
    holder = _holder(home)
    said = holder.said if holder else "one that is just starting"
    return ServiceRunning(f"{home} has a service already: {said}; use that one, or stop it first")


def last_address(home: Path) -> str | None:
    """Where the web UI of the home's service is, or was last; None if there was none."""
    holder = _holder(home)
    return None if holder is None else holder.address


def _write(lock: int, command: str, address: str) -> str:
    since = datetime.now().astimezone().isoformat(timespec="seconds")
    holder = Holder(uuid.uuid4().hex, command, os.getpid(), socket.gethostname(), address, since)
    os.ftruncate(lock, 0)
    os.pwrite(lock, json.dumps(asdict(holder)).encode(), 0)
    return holder.service


def _holder(home: Path) -> Holder | None:
    """None while it is being written."""
    try:
        return Holder(**json.loads((home / SERVICE_LOCK).read_text()))
    except (OSError, ValueError, TypeError):
        return None


def starts_a_service(arguments: Sequence[str]) -> bool:
    """Whether a process with this command line is `dagster dev`, `dg dev` or a daemon."""
    program = Path(arguments[0])
    name = program.parent.name if program.name == "__main__.py" else program.stem
    return name in STARTERS and STARTERS[name] in arguments[1:]


def address_of(arguments: Sequence[str]) -> str:
    """Where the web UI of `dagster dev` is, by its command line."""
    given = dict(pairwise(arguments))
    host = given.get("--host") or given.get("-h") or LOOPBACK
    return web_address(host, given.get("--port") or given.get("-p") or "3000")


class OneService(DagsterDaemonScheduler):
    """Dagster's own scheduler; where a service starts, the process ends if the home has one already."""

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData | None, config_value: Mapping[str, Any]) -> Self:
        if starts_a_service(sys.argv):
            command = "dagster-daemon" if "run" in sys.argv[1:2] else "dagster dev"
            try:
                hold(home_of(os.environ), command, address_of(sys.argv))
            except ServiceRunning as error:
                raise SystemExit(f"dasd: {error}") from None
        return cls(inst_data=inst_data, **config_value)
