"""Engines side by side, each in a process of few threads that runs one model after another.

For models too small to use a second core, of which many are asked, as those of experiments are: a process imports its
libraries once, which takes longer than to load such a model. `EngineWorkers` divides the requests of one model instead.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from queue import Queue

from dasd_resources.inference.engine import (
    Completion,
    Failure,
    GenerationRequest,
    InferenceEngine,
    Score,
    ScoringRequest,
)
from dasd_resources.inference.engine_worker import (
    SECONDS_TO_END,
    Load,
    Message,
    Method,
    Raised,
    Ready,
    kill,
    serve_in_turn,
    start,
)


class EngineProcess:
    """A process, and the engine that it has loaded; it is started by the first `load`."""

    def __init__(self, num_threads: int) -> None:
        self._num_threads = num_threads
        self._process: SpawnProcess | None = None
        self._pipe: Connection | None = None
        self._is_at_work = False

    def load(self, load: Load) -> None:
        """Have the engine loaded. Raises what `load` raises there."""
        if self._process is not None and not self._process.is_alive():  # it died while it waited
            self.end()
        self._is_at_work = True
        self._start().send(load)
        self._receive()
        self._is_at_work = False

    def generate(self, requests: Sequence[GenerationRequest]) -> Iterator[Completion | Failure]:
        """Sample every request."""
        return self._run("generate", requests)  # type: ignore[return-value]

    def score(self, requests: Sequence[ScoringRequest]) -> Iterator[Score | Failure]:
        """Score every sequence."""
        return self._run("score", requests)  # type: ignore[return-value]

    def close(self) -> None:
        """Have the engine freed; the process waits for the next, unless it is in the middle of something."""
        if self._is_at_work or self._pipe is None:
            self.end()
            return
        try:
            self._pipe.send(None)
        except OSError:  # it has died since
            self.end()

    def let_end(self) -> None:
        """Have the process end, without waiting for it: as its pipe closes, or by SIGTERM if it is at work."""
        if self._pipe is not None and self._process is not None:
            self._pipe.close()
            if self._is_at_work:
                self._process.terminate()

    def end(self) -> None:
        """End the process, if there is one, and what its engine has started."""
        self.let_end()
        process, self._process, self._pipe, self._is_at_work = self._process, None, None, False
        if process is not None:
            process.join(SECONDS_TO_END)
            kill(process)

    def _start(self) -> Connection:
        if self._pipe is None:
            self._process, self._pipe = start(serve_in_turn, self._num_threads)
        return self._pipe

    def _run(
        self, method: Method, requests: Sequence[GenerationRequest] | Sequence[ScoringRequest]
    ) -> Iterator[Completion | Score | Failure]:
        assert self._pipe is not None, "the engine is loaded first"
        self._is_at_work = True
        self._pipe.send((method, requests))
        while not isinstance(message := self._receive(), Ready):
            yield message
        self._is_at_work = False

    def _receive(self) -> Completion | Score | Failure | Ready:
        assert self._pipe is not None and self._process is not None
        try:
            message: Message = self._pipe.recv()
        except (EOFError, OSError):
            self._process.join(SECONDS_TO_END)
            raise RuntimeError(
                f"the engine's process ended (exit code {self._process.exitcode}): was there too little memory?"
            ) from None
        if isinstance(message, Raised):
            raise message.error
        return message


class EngineProcesses:
    """So many processes, lent to whoever asks for a model; safe to use from several threads."""

    def __init__(self, num: int, num_threads: int) -> None:
        self._all = [EngineProcess(num_threads) for _ in range(num)]
        self._free: Queue[EngineProcess] = Queue()
        for process in self._all:
            self._free.put(process)

    @contextmanager
    def open(self, load: Load) -> Iterator[InferenceEngine]:
        """The engine that `load` makes, in a process that is free; waits for one."""
        process = self._free.get()
        try:
            process.load(load)
            yield process
        finally:
            try:
                process.close()
            finally:  # or who waits for one would wait for ever
                self._free.put(process)

    def end(self) -> None:
        """End all processes."""
        for process in self._all:
            process.let_end()
        for process in self._all:
            process.end()
