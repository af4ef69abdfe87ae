"""Trainings forked from a process that has imported their libraries: each is still a process of its own.

For models so small that to import PyTorch and TRL takes a sixth of a training, of which many are trained, as those of
experiments are. The process that forks is Python's fork server, which computes nothing itself and has no thread of
Python's but one, so that what it forks is as new. Left out: launchers, and GPUs, whose drivers do not survive a fork.
"""

import multiprocessing
import os
import subprocess
from collections.abc import Mapping, Sequence
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess
from pathlib import Path

PRELOAD = "dasd_resources.sft.fork_preload"


class ForkedChild:
    """A training's process, to be used as a `subprocess.Popen` is; `stdin` is what it holds on to."""

    def __init__(self, process: ForkServerProcess, stdin: Connection) -> None:
        assert process.pid
        self.pid, self.stdin, self._process = process.pid, stdin, process

    @property
    def returncode(self) -> int | None:
        """The exit code, negative for a signal; None while it runs."""
        return self._process.exitcode

    def poll(self) -> int | None:
        """The same."""
        return self.returncode

    def wait(self, timeout: float | None = None) -> None:
        """Return once it has ended. Raises subprocess.TimeoutExpired."""
        self._process.join(timeout)
        if self.returncode is None:
            raise subprocess.TimeoutExpired(self._process.name, timeout or 0.0)


def start(arguments: Sequence[str], environment: Mapping[str, str], log: int, lock: int) -> ForkedChild:
    """`python -m dasd_resources.sft.child` with these arguments, which writes to `log` and holds `lock`.

    environment: instead of this process's; what libraries read as they are imported has been decided before.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([PRELOAD])  # of no effect once the server runs
    theirs, ours = context.Pipe(duplex=False)
    with theirs, Connection(os.dup(log)) as to_log, Connection(os.dup(lock)) as holding:  # the child has copies
        process = context.Process(target=_train, args=(list(arguments), dict(environment), theirs, to_log, holding))
        process.start()
    return ForkedChild(process, ours)


def _train(
    arguments: list[str], environment: dict[str, str], holder: Connection, log: Connection, lock: Connection
) -> None:
    os.setsid()  # the group that the trainer ends
    os.dup2(log.fileno(), 1)
    os.dup2(log.fileno(), 2)
    os.environ.clear()
    os.environ.update(environment)

    import torch

    from dasd_resources.orphans import end_with_holder
    from dasd_resources.sft.child import main

    torch.set_num_threads(int(environment["OMP_NUM_THREADS"]))
    end_with_holder(holder.fileno())
    main(Path(arguments[0]), arguments[1] if len(arguments) > 1 else None)
    lock.close()  # not before
