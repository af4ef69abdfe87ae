"""Engines for the processes of `EngineWorkers`, which import this module: what each does is in its name."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from dasd_resources.inference.engine import (
    Completion,
    Failure,
    GenerationRequest,
    InferenceEngine,
    Score,
    ScoringRequest,
)


@dataclass
class Own:
    """An engine whose completions say which process made them; what it does at which request is for a test to say."""

    at: Callable[[str], None] = print

    def generate(self, requests: Sequence[GenerationRequest]) -> Iterator[Completion | Failure]:
        for request in requests:
            self.at(request.request_id)
            yield Completion(request.request_id, [os.getpid()], [-0.5], "stop")

    def score(self, requests: Sequence[ScoringRequest]) -> Iterator[Score | Failure]:
        for request in requests:
            self.at(request.request_id)
            yield Failure(request.request_id, os.environ.get("CUDA_VISIBLE_DEVICES", "none"))

    def close(self) -> None: ...


def undisturbed() -> InferenceEngine:
    return Own(lambda request_id: None)


def at_work_together(number: int, folder: Path) -> InferenceEngine:
    """Goes on when so many processes are at work, each of which leaves a file."""

    def wait_for_others(request_id: str) -> None:
        (folder / str(os.getpid())).touch()
        while len(list(folder.iterdir())) < number:
            time.sleep(0.01)

    return Own(wait_for_others)


def killed(at: str) -> InferenceEngine:
    """Killed at a request, every time."""
    return Own(lambda request_id: _die() if request_id == at else None)


def killed_at_each(at: Sequence[str], marks: Path) -> InferenceEngine:
    """Killed at these requests, once at each; the folder remembers it."""

    def kill(request_id: str) -> None:
        if request_id in at and not (marks / request_id).exists():
            (marks / request_id).touch()
            _die()

    return Own(kill)


def killed_beside_a_child(lock: Path) -> InferenceEngine:
    """Starts a process that holds a lock for ever, and is killed at the first request."""
    code = "import fcntl, sys, time; f = open(sys.argv[1], 'w'); fcntl.flock(f, 2); print(flush=True); time.sleep(3600)"
    child = subprocess.Popen([sys.executable, "-c", code, str(lock)], stdout=subprocess.PIPE)
    assert child.stdout is not None
    child.stdout.readline()
    return Own(lambda request_id: _die())


def endless_beside_a_child(note: Path) -> InferenceEngine:
    """Starts a process, as vLLM does, and writes down its own id and that one's; then it never answers."""
    child = subprocess.Popen(["sleep", "3600"])
    note.with_suffix(".part").write_text(f"{os.getpid()} {child.pid}")
    note.with_suffix(".part").rename(note)
    return endless()


def failing_at(at: str) -> InferenceEngine:
    def fail(request_id: str) -> None:
        if request_id == at:
            raise ValueError(f"{at} cannot be asked")

    return Own(fail)


def endless() -> InferenceEngine:
    return Own(lambda request_id: time.sleep(3600 if request_id != "r0" else 0))


def unloadable() -> InferenceEngine:
    raise ValueError("set engine: vllm")


def dead_at_once() -> InferenceEngine:
    os._exit(3)


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)
