"""Engines for the actors of Ray, which import this module: what each does is in its name. Rows follow from requests."""

import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from random import Random

import ray

from dasd_resources.inference.engine import (
    Completion,
    Failure,
    GenerationRequest,
    InferenceEngine,
    Score,
    ScoringRequest,
)


@dataclass
class Deterministic:
    """Tokens and logprobs that follow from a request alone; what it does at which request is for a test to say."""

    at: Callable[[str], None]

    def generate(self, requests: Sequence[GenerationRequest]) -> Iterator[Completion | Failure]:
        for request in requests:
            self.at(request.request_id)
            rng = Random(request.seed)
            token_ids = [rng.randrange(100) for _ in range(rng.randint(1, request.max_tokens))]
            yield Completion(request.request_id, token_ids, self.logprobs(token_ids), "stop")

    def score(self, requests: Sequence[ScoringRequest]) -> Iterator[Score | Failure]:
        for request in requests:
            self.at(request.request_id)
            yield Score(request.request_id, self.logprobs(request.token_ids[request.num_prompt_tokens :]))

    def close(self) -> None: ...

    def logprobs(self, token_ids: Sequence[int]) -> list[float]:
        return [-token / 7 for token in token_ids]


def deterministic() -> InferenceEngine:
    return Deterministic(lambda request_id: None)


@dataclass
class Forgetful(Deterministic):
    """It gives no result for one request."""

    left_out: str

    def generate(self, requests: Sequence[GenerationRequest]) -> Iterator[Completion | Failure]:
        yield from super().generate([request for request in requests if request.request_id != self.left_out])


def forgetful(left_out: str) -> InferenceEngine:
    return Forgetful(lambda request_id: None, left_out)


def endless(folder: Path) -> InferenceEngine:
    """Leaves a file named for its process, and never ends."""
    (folder / str(os.getpid())).touch()
    return Deterministic(lambda request_id: time.sleep(3600))


def killed_once(at: str, marks: Path) -> InferenceEngine:
    """Killed at a request, once; the folder remembers it."""

    def kill(request_id: str) -> None:
        if request_id == at and not (marks / at).exists():
            (marks / at).touch()
            os.kill(os.getpid(), signal.SIGKILL)

    return Deterministic(kill)


def killed(at: str) -> InferenceEngine:
    """Killed at a request, every time."""
    return Deterministic(lambda request_id: os.kill(os.getpid(), signal.SIGKILL) if request_id == at else None)


def unloadable() -> InferenceEngine:
    raise ValueError("set engine: vllm")


def joined_then_stuck(folder: Path) -> InferenceEngine:
    """The first replica goes on when a second has begun, which hangs at its fifth request. Each keeps a file."""
    is_first, own = not list(folder.iterdir()), folder / str(os.getpid())
    own.touch()

    def note(request_id: str) -> None:
        own.write_text(f"{own.read_text()}{request_id}\n")
        is_fifth = len(own.read_text().split()) == 5
        while is_fifth and (not is_first or len(list(folder.iterdir())) < 2):
            time.sleep(0.05)

    return Deterministic(note)


def stuck_on(node_id: str, mark: Path) -> InferenceEngine:
    """On that node it leaves the mark at its fifth request, and hangs; on another it waits there for the mark."""
    asked, is_there = count(1), ray.get_runtime_context().get_node_id() == node_id

    def wait(request_id: str) -> None:
        if next(asked) == 5:
            if is_there:
                mark.touch()
            while is_there or not mark.exists():
                time.sleep(0.05)

    return Deterministic(wait)
