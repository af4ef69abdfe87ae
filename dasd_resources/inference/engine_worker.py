"""The process of one replica of a model: it loads the engine, and answers what `EngineWorkers` asks through a pipe.

It ends with its parent, when the pipe closes, and at SIGTERM; in the last two cases it closes the engine first. One of
`EngineProcesses` loads one engine after another.
"""

import multiprocessing
import os
import pickle
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from multiprocessing.util import Finalize
from typing import Literal

from dasd_resources.inference.engine import Completion, Failure, InferenceEngine, Score
from dasd_resources.inference.gpus import VISIBLE
from dasd_resources.orphans import end_with_starter

SECONDS_TO_END = 5.0  # for closing the engine; a command that is interrupted has ten in all
Load = Callable[[], InferenceEngine]
Method = Literal["generate", "score"]


@dataclass(frozen=True)
class Ready:
    """The engine is loaded, or has done its job."""


@dataclass(frozen=True)
class Raised:
    """The engine raised an error; the process ends."""

    error: Exception


Message = Completion | Failure | Score | Ready | Raised
_at_exit: dict[SpawnProcess, list[Finalize]] = {}  # what ends those that were started and not killed yet


def start(target: Callable[..., None], *args: object) -> tuple[SpawnProcess, Connection]:
    """A new process that runs `serve` or `serve_in_turn` on one end of a pipe; it, and the other end.

    It is ended when this process exits, if nobody did before: an error's traceback may keep the generator that would.
    """
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=target, args=(theirs, *args))
    process.start()
    theirs.close()  # or its end would not be seen here
    # Before Python waits for it, which would wait for us.
    _at_exit[process] = [Finalize(None, end, exitpriority=0) for end in (ours.close, process.terminate)]
    return process, ours


def kill(process: SpawnProcess) -> None:
    """End it, and with it what its engine has started: vLLM's own processes outlive one that was killed."""
    assert process.pid, "it was started"
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.kill()
    process.join()
    for hook in _at_exit.pop(process, ()):
        hook.cancel()


def serve(pipe: Connection, load: Load, gpus: Sequence[str], num_threads: int) -> None:
    """Load the engine on these GPUs, or with so many threads where there are none, and answer until the pipe closes."""
    _begin(gpus, num_threads)
    _serve(pipe, load)


def serve_in_turn(pipe: Connection, num_threads: int) -> None:
    """Load each engine that comes through the pipe, with so many threads, and answer until the next, or it closes."""
    _begin((), num_threads)
    with suppress(EOFError):
        while True:
            load: Load = pipe.recv()
            _serve(pipe, load)


def _serve(pipe: Connection, load: Load) -> None:
    try:
        with closing(load()) as engine:
            _answer(pipe, engine)
    except Exception as error:
        with suppress(OSError):  # the parent has closed its end: that is how it says that nothing more is wanted
            pipe.send(Raised(portable(error)))


def _begin(gpus: Sequence[str], num_threads: int) -> None:
    end_with_starter()
    os.setpgrp()  # the group that the parent ends when it ends this process
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes of a terminal; the parent decides
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    if gpus:
        os.environ[VISIBLE] = ",".join(gpus)
    else:
        os.environ["OMP_NUM_THREADS"] = str(num_threads)  # read when torch is imported, which `load` does


def _answer(pipe: Connection, engine: InferenceEngine) -> None:
    """Do what comes through the pipe, until None does."""
    while True:
        pipe.send(Ready())
        job = pipe.recv()
        if job is None:
            return
        method, requests = job
        for result in engine.generate(requests) if method == "generate" else engine.score(requests):
            pipe.send(result)


def portable(error: Exception) -> Exception:
    """The error as the parent can raise it, with this process's traceback as a note."""
    error.add_note("in the process of a replica:\n" + "".join(traceback.format_exception(error)))
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # an error's class may have arguments of its own
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error
