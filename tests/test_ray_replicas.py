"""Replicas on a Ray cluster of two nodes: every request once, whatever dies or joins; and the rows of one engine."""

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TypeVar

import pytest
import ray
from conftest import Project, change, prompt_rows
from ray.cluster_utils import Cluster
from ray_engines import (
    Deterministic,
    deterministic,
    forgetful,
    joined_then_stuck,
    killed,
    killed_once,
    stuck_on,
    unloadable,
)

from dasd_assets.commands.check.cluster import cluster as check_cluster
from dasd_assets.commands.check.outcome import CheckFailed, CheckWarning
from dasd_resources.inference.engine import (
    Completion,
    Failure,
    GenerationRequest,
    InferenceEngine,
    Score,
    ScoringRequest,
)
from dasd_resources.inference.engine_worker import Load, Raised
from dasd_resources.inference.engines import Engines, PromptedModel, once_each
from dasd_resources.inference.ray_cluster import needs, room_on
from dasd_resources.inference.ray_node import NodeState, Replica
from dasd_resources.inference.ray_replicas import LEAST, MOST, Placing, RayReplicas, allowance
from dasd_resources.recipe import RayCluster, Recipe, RecipeError, load_recipe

CORE = {"CPU": 1.0}
QUICK = {"health_check_period_ms": 500, "health_check_failure_threshold": 4}  # to find that a node is gone
TESTS = Path(__file__).parent
Begun = TypeVar("Begun")


def requests(number: int) -> list[GenerationRequest]:
    """The later, the longer."""
    return [GenerationRequest(f"r{i}", (5,) * (1 + i), 1.0, 1.0, 8, i, ()) for i in range(number)]


def to_score(number: int) -> list[ScoringRequest]:
    return [ScoringRequest(f"s{i}", tuple(range(2 + i)), 1) for i in range(number)]


def by_id(results: Iterator[Completion | Failure | Score]) -> dict[str, Completion | Failure | Score]:
    found: dict[str, Completion | Failure | Score] = {}
    for result in results:
        assert result.request_id not in found
        found[result.request_id] = result
    return found


ALONE = Deterministic(lambda request_id: None)


def at_last(begin: Callable[[], Begun]) -> Begun:
    """What it begins. Ray gives a node thirty seconds for that, which are too few while others have all cores."""
    for _ in range(3):
        try:
            return begin()
        except Exception as error:
            if "timed out during startup" not in str(error):
                raise
    return begin()


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """A node with one core, where this process is; each test may add others, and ends them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("PYTHONPATH", os.pathsep.join([str(TESTS.parent), str(TESTS)]))  # of the actors
        head = {"num_cpus": 1, "include_dashboard": False, "_system_config": QUICK}
        started = at_last(lambda: Cluster(initialize_head=True, head_node_args=head))
        yield started
        started.shutdown()


def replicas(cluster: Cluster, load: Callable, num: int = 2) -> RayReplicas:  # type: ignore[type-arg]
    return RayReplicas(load, num, Placing(cluster.address, CORE, 60.0), TESTS / "no_model", None)


def wait_until(happens: Callable[[], bool], seconds: float = 120.0) -> None:
    until = time.monotonic() + seconds
    while not happens():
        assert time.monotonic() < until, "it did not happen"
        time.sleep(0.05)


def test_a_node_that_joins_takes_work_and_one_that_dies_loses_none(cluster: Cluster, tmp_path: Path) -> None:
    """One replica has no place at first. Its node joins, it takes work and hangs, and the node is killed."""
    asked = requests(60)
    seen: list[int] = []

    def lines() -> list[int]:
        return sorted(len(path.read_text().split()) for path in tmp_path.iterdir())

    def kill() -> None:
        wait_until(lambda: len(lines()) == 2 and lines()[0] == 5)
        seen.extend(lines())
        cluster.remove_node(node, allow_graceful=False)

    with closing(replicas(cluster, partial(joined_then_stuck, tmp_path))) as engine:
        results, found = engine.generate(asked), {}
        first = next(results)
        found[first.request_id] = first
        node = at_last(lambda: cluster.add_node(num_cpus=1))
        killing = threading.Thread(target=kill)
        killing.start()
        found |= by_id(results)
        killing.join()
        scores = by_id(engine.score(to_score(20)))
    assert seen[0] == 5, "the replica that joined had answered four"
    assert found == by_id(ALONE.generate(asked)) and len(found) == 60
    assert scores == by_id(ALONE.score(to_score(20)))
    assert not ray.is_initialized()


class Alone(Project):
    """A project whose engines do what `ALONE` does."""

    @property
    def engines(self) -> Engines:
        class OfOne(Engines):
            @contextmanager
            def open(self, model: PromptedModel) -> Iterator[InferenceEngine]:
                yield ALONE

        return OfOne(home=str(self.home))


@dataclass
class OnRay(Project):
    """A project whose replicas sample with what `load` makes; those of the parity check only score."""

    load: Load = deterministic

    @property
    def engines(self) -> Engines:
        load = self.load

        class OfReplicas(Engines):
            def loader(self, model: PromptedModel) -> Load:
                return deterministic if model.spec.engine_options.get("plain_scoring") else load

        return OfReplicas(home=str(self.home))


def test_an_assets_rows_are_committed_as_they_come_and_the_same_though_a_node_dies(
    cluster: Cluster, tiny: Recipe, tmp_path: Path
) -> None:
    """A replica on each of two nodes: one hangs, and its node is killed when rows of the other are committed.

    Of 720 requests a replica has 180 at a time, as four are asked for, so the other has 540: a commit is of 512.
    """
    recipe = change(tiny, "generation.num_candidates", 180)
    alone = Alone(tmp_path / "alone", recipe)
    alone.land("a.jsonl", prompt_rows(0, 4))
    alone.materialize("teacher_model,held_out_questions,prompts")
    there = {"address": cluster.address, "gpus": False}
    project = OnRay(tmp_path / "home", change(change(recipe, "teacher.ray", there), "teacher.replicas", 4))
    shutil.copytree(alone.home, project.home)
    node, hangs = at_last(lambda: cluster.add_node(num_cpus=1)), tmp_path / "hangs"
    project.load = partial(stuck_on, node.node_id, hangs)

    def kill() -> int:
        try:
            wait_until(lambda: hangs.exists() and project.count("responses") > 0, 400)  # the step has to begin first
            return project.count("responses")
        finally:
            hangs.touch()  # or whoever waits for it would for ever
            cluster.remove_node(node, allow_graceful=False)

    with ThreadPoolExecutor(1) as thread:
        killed = thread.submit(kill)
        project.materialize("teacher_generations_t060")
        assert 0 < killed.result() < 720
    alone.materialize("teacher_generations_t060")
    assert project.count("responses") == project.read("FROM responses")["response_id"].n_unique() == 720
    query = "SELECT * EXCLUDE run_id FROM responses ORDER BY response_id"
    assert project.read(query).equals(alone.read(query))
    assert project.count("failed_requests") == 0


def test_what_cannot_be_placed_or_loaded_is_an_error_that_says_why(cluster: Cluster) -> None:
    big = Placing(cluster.address, {"CPU": 3.0, "GPU": 2.0}, 0.5)
    message = r"no replica had a place on the Ray cluster for 0\.5 s .*each takes 3 CPU, 2 GPU of one node, and the "
    with (
        closing(RayReplicas(unloadable, 2, big, TESTS, None)) as engine,
        pytest.raises(RecipeError, match=message + r"cluster has .*: 1 CPU, 0 GPU \(1 CPU, 0 GPU free in all\); lower"),
    ):
        list(engine.generate(requests(3)))
    with (
        closing(replicas(cluster, unloadable, 1)) as engine,
        pytest.raises(RuntimeError, match="the last by set engine"),
    ):
        list(engine.generate(requests(3)))


@pytest.mark.drill
def test_what_a_killed_replica_had_is_asked_again_and_what_kills_three_is_a_failure(
    cluster: Cluster, tmp_path: Path
) -> None:
    asked = requests(30)
    with closing(replicas(cluster, partial(killed_once, "r20", tmp_path), 1)) as engine:
        assert by_id(engine.generate(asked)) == by_id(ALONE.generate(asked))
    with closing(replicas(cluster, partial(killed, "r0"), 1)) as engine:
        found = by_id(engine.generate(asked))
    lost = found.pop("r0")
    assert isinstance(lost, Failure) and lost.reason.startswith("3 replicas were lost while they had it")
    alone = by_id(ALONE.generate(asked))
    assert {key: alone[key] for key in found} == found and set(found) | {"r0"} == set(alone)


@pytest.mark.drill
def test_replicas_end_with_a_driver_that_is_killed(cluster: Cluster, tmp_path: Path) -> None:
    code = f"""if True:
        from functools import partial
        from pathlib import Path
        from ray_engines import endless
        from test_ray_replicas import CORE, TESTS, requests
        from dasd_resources.inference.ray_replicas import Placing, RayReplicas
        placing = Placing({cluster.address!r}, CORE, 60.0)
        engine = RayReplicas(partial(endless, Path({str(tmp_path)!r})), 1, placing, TESTS / "no_model", None)
        list(engine.generate(requests(3)))"""
    for number in (signal.SIGKILL, signal.SIGTERM, signal.SIGINT):
        driver = subprocess.Popen([sys.executable, "-c", code])
        wait_until(lambda: bool(list(tmp_path.iterdir())))
        [path] = tmp_path.iterdir()
        driver.send_signal(number)
        driver.wait(60)
        wait_until(lambda path=path: not Path("/proc", path.name).exists())  # type: ignore[misc]
        path.unlink()


def test_a_replica_gets_an_even_part_of_what_is_left_within_bounds() -> None:
    assert allowance(100, 4) == 25
    assert allowance(10, 4) == LEAST
    assert allowance(100_000, 4) == MOST


def test_what_a_replica_takes_of_a_node() -> None:
    teacher = load_recipe("dasd-4b").teacher
    own = RayCluster(num_cpus=4, resources={"accelerator_type:H100": 0.001})
    assert needs(teacher, own) == {"CPU": 4.0, "GPU": 8.0, "accelerator_type:H100": 0.001}
    assert needs(teacher, RayCluster(gpus=False)) == CORE
    node = {"Resources": {"CPU": 64.0, "GPU": 16.0}}
    assert room_on(node, {"CPU": 4.0, "GPU": 8.0}) == 2
    assert room_on(node, {"CPU": 4.0, "GPU": 8.0, "accelerator_type:H100": 0.001}) == 0


def test_a_node_with_other_versions_code_or_model_is_told_from_one_without_the_package() -> None:
    def state(versions: dict[str, str], code: str = "c", model: str = "m") -> NodeState:
        return NodeState("id", "10.0.0.1", versions, code, "/model", model)

    here = state({"Python": "3.11.7", "torch": "2.9.0"})
    assert here.difference(state({"Python": "3.11.7", "torch": "2.9.0", "vllm": "0.32.0"})) is None
    assert here.difference(state({"Python": "3.11.7", "torch": "2.9.1"})) == "torch 2.9.1, not 2.9.0"
    assert here.difference(state({}, code="d")) == "another version of dasd"
    assert here.difference(state({}, model="n")) == "other files in /model"
    assert here.difference(state({}, model="")) == "no model in /model"


def test_whose_model_cannot_be_read_leaves_the_cluster(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    def unreadable(folder: Path, package: str | None) -> NodeState:
        assert ray.is_initialized()  # it has joined
        raise OSError("the disk is gone")

    monkeypatch.setattr("dasd_resources.inference.ray_replicas.state_of", unreadable)
    with pytest.raises(OSError, match="the disk is gone"):
        replicas(cluster, ALONE)
    assert not ray.is_initialized()


def test_what_an_engine_raises_is_said() -> None:
    [said] = Replica().answer(unloadable, gpus=True)
    assert isinstance(said, Raised) and str(said.error) == "set engine: vllm"


def test_a_request_that_the_engine_leaves_out_is_a_failure_and_not_waited_for(cluster: Cluster) -> None:
    asked, alone = requests(3), by_id(ALONE.generate(requests(3)))
    with closing(replicas(cluster, partial(forgetful, "r1"), 1)) as engine:
        found = by_id(once_each(asked, engine.generate(asked)))
        again = by_id(engine.generate(asked[:1]))
    left_out = found.pop("r1")
    assert isinstance(left_out, Failure) and left_out.kind == "no_result"
    assert again.items() < found.items() < alone.items() and len(found) == 2


def of_demo(home: Path, asked: RayCluster, **changes: object) -> PromptedModel:
    spec = load_recipe("demo").teacher.model_copy(update={"ray": asked, **changes})
    return Engines(home=str(home)).find(spec, "teacher.model")


@pytest.mark.drill
def test_the_preflight_says_whether_there_is_room_and_nodes_compute_the_same(cluster: Cluster, tmp_path: Path) -> None:
    asked = RayCluster(address=cluster.address, gpus=False)
    model = of_demo(tmp_path, asked)
    said = "room for 1 replicas of 1 CPU on 1 node"
    assert check_cluster(model, asked) == f"{said}, 1 wanted; versions, code and files are those of this machine"
    with pytest.raises(CheckWarning, match=f"{said}; the other 2 begin when nodes join"):
        check_cluster(of_demo(tmp_path, asked, replicas=3), asked)
    with pytest.raises(CheckFailed, match=r"no replica has room: each takes 1 CPU, 1 GPU of one node, and the cluster"):
        check_cluster(model, RayCluster(address=cluster.address))


@pytest.mark.drill
def test_rows_on_ray_are_those_of_the_engine_here(cluster: Cluster, tmp_path: Path) -> None:
    """The recipe's way: the demo's teacher samples in an actor, and scores what it said."""
    model = of_demo(tmp_path, RayCluster(address=cluster.address, gpus=False))
    here = replace(model, spec=model.spec.model_copy(update={"ray": None}))
    assert (model.fingerprint, model.spec.engine) == (here.fingerprint, here.spec.engine)
    engines, prompt = Engines(home=str(tmp_path)), tuple(model.chat.prompt_ids("chain problem: 3 + 4 ="))
    asked = [GenerationRequest(f"r{i}", prompt, 1.0, 1.0, 40, i, tuple(model.chat.stop_token_ids)) for i in range(8)]
    there, made = by_id(engines.generate(model, asked)), by_id(engines.generate(here, asked))
    assert set(there) == set(made) == {request.request_id for request in asked}
    for key, own in made.items():
        other = there[key]
        assert isinstance(own, Completion) and isinstance(other, Completion)
        assert (other.token_ids, other.finish_reason) == (own.token_ids, own.finish_reason)
        assert other.logprobs == pytest.approx(own.logprobs, abs=1e-4)
    to_score = [
        ScoringRequest(c.request_id, (*prompt, *c.token_ids), len(prompt))
        for c in made.values()
        if isinstance(c, Completion)
    ]
    for score in engines.score(model, to_score):
        own = made[score.request_id]
        assert isinstance(score, Score) and isinstance(own, Completion)
        assert score.logprobs == pytest.approx(own.logprobs, abs=1e-4)


def test_where_there_is_no_cluster_the_error_says_how_to_begin_one() -> None:
    """At once: Ray tries for twenty seconds, or, where another cluster was left, for a quarter of an hour."""
    with pytest.raises(
        RecipeError, match=r"ray\.address: 127\.0\.0\.1:1: no cluster could be joined .*ray start --head"
    ):
        RayReplicas(unloadable, 1, Placing("127.0.0.1:1", CORE, 1.0), TESTS, None)
