"""EngineWorkers: several replicas of a model as one InferenceEngine, each in a process of its own (data parallelism).

Requests are handed out as replicas become free, and results passed on as they come. What a process had when it died,
or its engine raised an error, is asked of the others; a request that has lost three ends as a Failure. A lost process
is started again by the next call, not within one: what killed it may do so again.
"""

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import Generic

from dasd_resources.inference.engine import Completion, Failure, GenerationRequest, Score, ScoringRequest
from dasd_resources.inference.engine_worker import (
    SECONDS_TO_END,
    Load,
    Message,
    Method,
    Raised,
    Ready,
    kill,
    serve,
    start,
)
from dasd_resources.inference.limits import Request
from dasd_resources.machine import num_cores

RUNS_AT_ONCE = 256  # requests that an engine runs at once: holding any back for later would only make it wait
LEAST = 32  # handed out at a time, while there are so many
FIRST_PART = 0.75  # of more requests than run at once; the rest evens out what lengths nobody knew did
MAX_DEATHS = 3  # of processes that had a request; it may be the cause, or have been beside it

log = logging.getLogger(__name__)


@dataclass
class Worker(Generic[Request]):
    """A process, our end of its pipe, and what it was asked and has not answered."""

    process: SpawnProcess
    pipe: Connection
    gpus: Sequence[str]
    is_ready: bool = False
    num_jobs: int = 0  # of the current call
    asked: dict[str, Request] = field(default_factory=dict)
    error: Exception | None = None  # which its engine raised

    @property
    def is_at_work(self) -> bool:
        """Whether it was asked something and has not reported that it is done."""
        return self.num_jobs > 0 and not self.is_ready

    def ask(self, method: Method, requests: Sequence[Request]) -> None:
        """Have the requests answered; a process that has died is found so when it is next listened to."""
        self.is_ready, self.num_jobs = False, self.num_jobs + 1
        self.asked = {request.request_id: request for request in requests}
        try:
            self.pipe.send((method, requests))
        except OSError:
            log.debug("process %s no longer reads", self.process.pid)

    def receive(self) -> Completion | Score | Failure | Ready | None:
        """Its next message; None if it has died, or ends because its engine raised an error."""
        try:
            message: Message = self.pipe.recv()
        except (EOFError, OSError):
            return None
        if isinstance(message, Raised):
            self.error = message.error
            return None
        return message

    @property
    def why(self) -> str:
        """Why it is no more."""
        return f"{type(self.error).__name__}: {self.error}" if self.error else f"exit code {self.process.exitcode}"


class EngineWorkers:
    """Replicas of the engine that `load` makes, one for each entry of `gpus`: the names of its GPUs, or none."""

    def __init__(self, load: Load, gpus: Sequence[Sequence[str]]) -> None:
        self._load = load
        self._free = list(gpus)
        self._of_lost: list[Sequence[str]] = []
        self._num_threads = max(1, num_cores() // len(gpus))
        self._workers: list[Worker] = []
        self._last_error: Exception | None = None

    def generate(self, requests: Sequence[GenerationRequest]) -> Iterator[Completion | Failure]:
        """Sample every request."""
        return self._run("generate", requests, lambda r: len(r.prompt_token_ids) + r.max_tokens)  # type: ignore[return-value]

    def score(self, requests: Sequence[ScoringRequest]) -> Iterator[Score | Failure]:
        """Score every sequence."""
        return self._run("score", requests, lambda r: len(r.token_ids))  # type: ignore[return-value]

    def close(self) -> None:
        """End the processes, those that load or are at work by SIGTERM."""
        self._end(self._workers)
        self._workers = []

    def _run(
        self, method: Method, requests: Sequence[Request], length: Callable[[Request], int]
    ) -> Iterator[Completion | Score | Failure]:
        waiting, deaths = sorted(requests, key=length, reverse=True), Counter[str]()
        for worker in [worker for worker in self._workers if not worker.process.is_alive()]:
            self._lost(worker)  # since the last call
        self._free, self._of_lost = [*self._free, *self._of_lost], []
        self._start(len(waiting))
        for worker in self._workers:
            worker.num_jobs = 0
        try:
            while waiting or any(worker.is_at_work for worker in self._workers):
                # 1. Whoever is free gets a part of what waits.
                waiting = self._hand_out(method, waiting, len(requests))
                # 2. Results are passed on; what a lost process had waits again, but for what has lost too many.
                for worker, message in self._messages():
                    if isinstance(message, Ready):
                        worker.is_ready, worker.asked = True, {}
                    elif message is not None:
                        worker.asked.pop(message.request_id, None)
                        yield message
                    else:
                        lost = self._lost(worker)
                        deaths.update(request.request_id for request in lost)
                        waiting += [r for r in lost if deaths[r.request_id] < MAX_DEATHS]
                        waiting.sort(key=length, reverse=True)
                        yield from (_given_up(r, worker) for r in lost if deaths[r.request_id] >= MAX_DEATHS)
                        self._start(len(waiting))
        finally:
            self._drop_busy()

    def _start(self, num_requests: int) -> None:
        """Start the processes that are missing, but no more than there are requests."""
        while self._free and len(self._workers) < num_requests:
            gpus = self._free.pop(0)
            process, pipe = start(serve, self._load, gpus, self._num_threads)
            self._workers.append(Worker(process, pipe, gpus))

    def _hand_out(self, method: Method, waiting: list[Request], total: int) -> list[Request]:
        """Give every free process its part; returns what is left."""
        if waiting and not self._workers:
            raise self._last_error or RuntimeError(
                f"every process of the model's replicas has died, and {len(waiting)} requests are left: was there too "
                "little memory? lower replicas, or what the engine keeps in memory"
            )
        for worker in self._workers:
            if worker.is_ready and waiting:
                size = part_size(len(waiting), total, len(self._workers), worker.num_jobs == 0)
                part, waiting = take(waiting, size)
                worker.ask(method, part)
        return waiting

    def _messages(self) -> Iterator[tuple[Worker, Completion | Score | Failure | Ready | None]]:
        """What has come from any process, as soon as something has; None for one that has died."""
        heard = wait([worker.pipe for worker in self._workers])
        for worker in [worker for worker in self._workers if worker.pipe in heard]:
            yield worker, worker.receive()

    def _lost(self, worker: Worker[Request]) -> list[Request]:
        """What a process that is no more had not answered."""
        self._workers.remove(worker)
        self._end([worker])
        self._of_lost.append(worker.gpus)
        self._last_error = worker.error or self._last_error
        log.warning(
            "a replica's process is lost (%s); the %d requests that it had are asked of the other %d",
            worker.why,
            len(worker.asked),
            len(self._workers),
        )
        return list(worker.asked.values())

    def _drop_busy(self) -> None:
        """End the processes at work for a caller who has stopped listening; others take their GPUs when needed."""
        busy = [worker for worker in self._workers if worker.is_at_work]
        self._end(busy)
        self._workers = [worker for worker in self._workers if worker not in busy]
        self._free += [worker.gpus for worker in busy]

    def _end(self, workers: Sequence[Worker]) -> None:
        for worker in workers:
            worker.pipe.close()
            if not worker.is_ready:
                worker.process.terminate()
        deadline = time.monotonic() + SECONDS_TO_END
        for worker in workers:
            worker.process.join(max(0.0, deadline - time.monotonic()))
            kill(worker.process)


def part_size(num_waiting: int, total: int, num_workers: int, is_first: bool) -> int:
    """How many requests a free process gets: first an even part, of all if they run at once anyway; then ever fewer.

    So processes are fed rarely, and yet end together.
    """
    if is_first:
        dealt = total if total <= RUNS_AT_ONCE * num_workers else int(FIRST_PART * total)
        return -(-dealt // num_workers)
    return max(LEAST, -(-num_waiting // num_workers))


def take(waiting: Sequence[Request], size: int) -> tuple[list[Request], list[Request]]:
    """Up to `size` of the requests, of all lengths alike where they are sorted by length; and the others."""
    stride = max(1, len(waiting) // size)
    chosen = set(range(0, len(waiting), stride)[:size])
    return [waiting[i] for i in sorted(chosen)], [r for i, r in enumerate(waiting) if i not in chosen]


def _given_up(request: Request, worker: Worker) -> Failure:
    reason = f"{MAX_DEATHS} processes of the model's replicas were lost while they had it, the last by {worker.why}"
    return Failure(request.request_id, reason)
