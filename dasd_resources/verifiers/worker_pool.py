"""Child processes that answer a line of JSON with a line of JSON, each with a time limit, replaced when one dies.

For libraries that work on model output and may hang, fill the memory or crash. Plain strings go over pipes, so nothing
that a child sends can be executed here. Children see neither the environment's secrets nor a terminal; they end when
their input does, so also with this process.
"""

import atexit
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import BoundedSemaphore, Lock

from dasd_resources.machine import num_cores

ENVIRONMENT = {"LANG": "C.UTF-8", "PYTHONHASHSEED": "0", "OMP_NUM_THREADS": "1"}  # all that a child is given
MAX_REPLY_BYTES = 1_000_000


class TimedOut(Exception):
    """The child reached its limit of time; it was ended."""


class Died(Exception):
    """The child ended without a reply, or sent none that can be read."""


class Worker:
    """One child process."""

    def __init__(self, command: Sequence[str]) -> None:
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            env=ENVIRONMENT,
            cwd="/",
        )

    def ask(self, request: object, seconds: float) -> object:
        """The reply to a request. Raises TimedOut or Died, after which the worker is of no more use."""
        try:
            self._write(json.dumps(request).encode() + b"\n")
            return json.loads(self._read_line(time.monotonic() + seconds))
        except (OSError, ValueError) as error:
            raise Died(str(error)) from None

    def end(self) -> None:
        """Kill the process and wait for its end."""
        self._process.kill()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with suppress(OSError):
                    pipe.close()
        self._process.wait()

    def _write(self, line: bytes) -> None:
        assert self._process.stdin is not None
        while line:
            line = line[self._process.stdin.write(line) or 0 :]

    def _read_line(self, deadline: float) -> bytes:
        assert self._process.stdout is not None
        line, output = b"", self._process.stdout.fileno()
        poll = select.poll()  # `select` refuses file descriptors above 1023
        poll.register(output, select.POLLIN)
        while not line.endswith(b"\n"):
            if not poll.poll(max(0, 1000 * (deadline - time.monotonic()))):
                raise TimedOut
            part = os.read(output, 65536)
            line += part
            if not part or len(line) > MAX_REPLY_BYTES:
                raise self._ending()
        return line

    def _ending(self) -> Exception:
        """What it died of: beyond its limit of CPU time the system sends SIGXCPU."""
        self._process.kill()
        code = self._process.wait()
        return TimedOut() if code == -signal.SIGXCPU else Died(f"exit code {code}")


@dataclass
class WorkerPool:
    """At most `size` children that run `script` with `arguments`; each is started when it is first needed.

    seconds: on the clock, for one request. It is what ends a child that waits; one that computes should end itself.
    """

    script: Path
    arguments: tuple[str, ...]
    seconds: float
    size: int = field(default_factory=num_cores)
    _idle: list[Worker] = field(default_factory=list)
    _lock: Lock = field(default_factory=Lock)

    def __post_init__(self) -> None:
        self._free = BoundedSemaphore(self.size)
        atexit.register(self.close)

    def ask(self, request: object) -> object:
        """A child's reply; from any thread. Raises TimedOut, or Died if two children in a row end without one."""
        try:
            return self._ask_one(request)
        except Died:  # perhaps of what it was asked before
            return self._ask_one(request)

    def close(self) -> None:
        """End the children that wait for requests."""
        with self._lock:
            idle, self._idle = self._idle, []
        for worker in idle:
            worker.end()

    def retire(self, request: object) -> object:
        """A reply from a new child, whatever others have in their memory."""
        self.close()
        return self._ask_one(request)

    def _ask_one(self, request: object) -> object:
        with self._free:
            worker = self._take()
            try:
                reply = worker.ask(request, self.seconds)
            except BaseException:
                worker.end()
                raise
            with self._lock:
                self._idle.append(worker)
            return reply

    def _take(self) -> Worker:
        with self._lock:
            if self._idle:
                return self._idle.pop()
        # -I: neither PYTHONPATH nor the current folder decide what it imports. What it imports stays compiled, unless
        # the caller's does not: sympy and a parser's tables would take seconds of each child.
        flags = ["-I", "-B"] if sys.dont_write_bytecode else ["-I"]
        return Worker([sys.executable, *flags, str(self.script), *self.arguments])
