"""A model that stays loaded: found by who asks for the same, freed for anybody else; its rows are a new one's."""

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from filelock import FileLock

from dasd_resources.inference.engine import Completion, GenerationRequest, Score, ScoringRequest
from dasd_resources.inference.engines import Engines
from dasd_resources.inference.kept_loaded import LOCK, WANTED, free_kept_engine, kept_engine, make_room
from dasd_resources.recipe import load_recipe


@dataclass
class Loads:
    """What was loaded and closed, in order; `load` makes an engine that does nothing else."""

    home: Path
    events: list[str] = field(default_factory=list)

    def load(self, key: str) -> "Noted":
        self.events.append(f"load {key}")
        return Noted(key, self.events)

    def use(self, key: str, seconds: float = 60.0) -> None:
        with kept_engine(self.home, key, lambda: self.load(key), seconds):
            self.events.append(f"use {key}")


@dataclass
class Noted:
    key: str
    events: list[str]

    def generate(self, requests: object) -> Iterator[Completion]:
        raise NotImplementedError

    def score(self, requests: object) -> Iterator[Score]:
        raise NotImplementedError

    def close(self) -> None:
        self.events.append(f"close {self.key}")


@pytest.fixture
def loads(tmp_path: Path) -> Iterator[Loads]:
    yield Loads(tmp_path)
    free_kept_engine()


def test_the_same_model_is_loaded_once_and_another_takes_its_place(loads: Loads) -> None:
    for key in ("a", "a", "b", "a"):
        loads.use(key)
    free_kept_engine()
    assert loads.events == [
        *("load a", "use a", "use a", "close a"),
        *("load b", "use b", "close b"),
        *("load a", "use a", "close a"),
    ]
    free_kept_engine()
    assert loads.events[-2:] == ["use a", "close a"]


def test_after_an_error_it_is_not_kept(loads: Loads) -> None:
    with pytest.raises(RuntimeError, match="lost"), kept_engine(loads.home, "a", lambda: loads.load("a"), 60.0):
        raise RuntimeError("lost")
    loads.use("a")
    assert loads.events == ["load a", "close a", "load a", "use a"]


def test_one_in_use_is_neither_shared_nor_closed(loads: Loads) -> None:
    with kept_engine(loads.home, "a", lambda: loads.load("a"), 60.0):
        loads.use("a")
        free_kept_engine()
    assert loads.events == ["load a", "load a", "use a", "close a"]


def test_idle_it_is_freed_unless_used_since(loads: Loads) -> None:
    loads.use("a", seconds=60.0)
    loads.use("a", seconds=0.05)
    deadline = time.monotonic() + 20
    while "close a" not in loads.events and time.monotonic() < deadline:
        time.sleep(0.01)
    assert loads.events == ["load a", "use a", "use a", "close a"]


def test_another_process_that_needs_room_has_it_freed(loads: Loads) -> None:
    loads.use("a")
    code = f"from dasd_resources.inference.kept_loaded import make_room, Path; make_room(Path({str(loads.home)!r}))"
    subprocess.run([sys.executable, "-c", code], check=True)
    assert loads.events == ["load a", "use a", "close a"]
    loads.use("a")
    assert loads.events[3:] == ["load a", "use a"]


def test_where_another_process_keeps_one_ours_is_freed(loads: Loads) -> None:
    others = FileLock(loads.home / LOCK)
    with kept_engine(loads.home, "a", lambda: loads.load("a"), 60.0):
        others.acquire(timeout=0)
    assert loads.events == ["load a", "close a"]
    others.release()


def test_what_a_kept_engine_computes_is_what_a_new_one_does(tmp_path: Path) -> None:
    keeping, anew = Engines(home=str(tmp_path), keep_loaded_seconds=60.0), Engines(home=str(tmp_path))
    teacher = anew.find(load_recipe("demo").teacher, "teacher.model")
    prompts = [tuple(teacher.chat.prompt_ids(f"{number} + 4 = ?")) for number in range(6)]
    stop = teacher.chat.stop_token_ids
    asked = [GenerationRequest(f"r{i}", ids, 1.0, 1.0, 12, i, stop) for i, ids in enumerate(prompts)]
    to_score = [ScoringRequest(f"r{i}", ids, 1) for i, ids in enumerate(prompts)]

    def rows(engines: Engines) -> list[object]:
        both = [*engines.generate(teacher, asked), *engines.score(teacher, to_score)]
        return sorted(map(repr, both))

    first, second = rows(keeping), rows(keeping)
    free_kept_engine()
    assert first == second == rows(anew)


def test_a_changed_option_is_another_model(tmp_path: Path) -> None:
    engines = Engines(home=str(tmp_path), keep_loaded_seconds=60.0)
    teacher = engines.find(load_recipe("demo").teacher, "teacher.model")
    other = engines.find(teacher.spec.model_copy(update={"engine_options": {"max_batch_size": 2}}), "teacher.model")
    with engines.open(teacher) as one:
        pass
    with engines.open(teacher) as same:
        assert same is one
    with engines.open(other) as another:
        assert another is not one
    free_kept_engine()


def test_who_waits_for_room_asks_again_where_the_request_was_lost(tmp_path: Path) -> None:
    others, wanted = FileLock(tmp_path / LOCK), tmp_path / WANTED
    others.acquire(timeout=0)
    waiting = threading.Thread(target=make_room, args=(tmp_path,))
    waiting.start()
    for _ in range(2):  # the second time, because the first has been taken away
        deadline = time.monotonic() + 20
        while not wanted.exists():
            assert time.monotonic() < deadline
            time.sleep(0.01)
        wanted.unlink()
    others.release()
    waiting.join()
