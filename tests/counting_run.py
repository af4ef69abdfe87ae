"""`dasd run --select` in a process of its own, on real engines that write down every result before it is handed on.

Tests start it from a forkserver, which has the slow imports done: what starts at once can be killed often.
A line of the log is `PROCESS KIND ID`; it is written with one system call, so that a killed process loses none.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from conftest import Project

from dasd_resources.inference.engine import (
    Completion,
    Failure,
    GenerationRequest,
    InferenceEngine,
    Score,
    ScoringRequest,
)
from dasd_resources.inference.engines import Engines, PromptedModel
from dasd_resources.recipe import load_recipe

Result = TypeVar("Result", bound=Completion | Score | Failure)


class CountingEngine:
    """An engine whose results are on disk before anybody else sees them."""

    def __init__(self, engine: InferenceEngine, log: int, rescores: bool) -> None:
        self._engine, self._log, self._rescores = engine, log, rescores

    def generate(self, requests: Sequence[GenerationRequest]) -> Iterator[Completion | Failure]:
        return self._counted("generated", self._engine.generate(requests))

    def score(self, requests: Sequence[ScoringRequest]) -> Iterator[Score | Failure]:
        return self._counted("rescored" if self._rescores else "scored", self._engine.score(requests))

    def close(self) -> None:
        self._engine.close()

    def _counted(self, kind: str, results: Iterator[Result]) -> Iterator[Result]:
        for result in results:
            os.write(self._log, f"{os.getpid()} {kind} {result.request_id}\n".encode())
            yield result


class Counted(Project):
    """A project on the recipe's own engines, counted."""

    log: int

    @property
    def engines(self) -> Engines:
        log = self.log

        class CountingEngines(Engines):
            @contextmanager
            def open(self, model: PromptedModel) -> Iterator[InferenceEngine]:
                rescores = model.spec.engine_options.get("plain_scoring") is True
                with Engines.open(self, model) as engine:
                    yield CountingEngine(engine, log, rescores)

        return CountingEngines(home=str(self.home))


def main(home: Path, recipe: Path, selection: str, log: Path) -> None:
    project = Counted(home, load_recipe(str(recipe)))
    project.log = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    project.materialize(selection)
