"""The replica of a model in a Ray actor, on whatever node it was placed: it loads the engine and answers with it.

Requests come in as the driver has some for it, and each result goes out when it is finished. Nothing is written here:
rows are the driver's.
"""

import os
import platform
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, packages_distributions, version
from pathlib import Path
from queue import SimpleQueue

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from dasd_resources.content_hash import content_hash, file_hash
from dasd_resources.inference.engine import Completion, Failure, GenerationRequest, Score, ScoringRequest
from dasd_resources.inference.engine_worker import Load, Method, Raised, portable
from dasd_resources.inference.gpus import VISIBLE
from dasd_resources.inference.model_files import sampled_fingerprint
from dasd_resources.inference.ray_cluster import Needs, room_on

PACKAGES = ("numpy", "safetensors", "tokenizers", "torch", "transformers")  # on which an engine's numbers depend
CODE = Path(__file__).parents[1]
Result = Completion | Failure | Score
Requests = Sequence[GenerationRequest] | Sequence[ScoringRequest]
Job = tuple[Method, Requests]


@dataclass(frozen=True)
class Unanswered:
    """Requests of a job that the engine has ended without a result for."""

    request_ids: frozenset[str]


@dataclass(frozen=True)
class NodeState:
    """What a machine would compute with: equal on two, they give the same rows. `folder` is where the model lies."""

    node_id: str
    address: str
    versions: dict[str, str]
    code: str
    folder: str
    model: str

    def difference(self, other: "NodeState") -> str | None:
        """What makes `other` compute something else; None if nothing does. A package that one of them lacks may."""
        for name in sorted(self.versions.keys() & other.versions.keys()):
            if self.versions[name] != other.versions[name]:
                return f"{name} {other.versions[name]}, not {self.versions[name]}"
        if other.code != self.code:
            return "another version of dasd"
        if other.model != self.model:
            return f"{'other files' if other.model else 'no model'} in {self.folder}"
        return None


def state_of(folder: Path, package: str | None) -> NodeState:
    """That of this machine, a node of the cluster. package: the engine's own, if it has one."""
    versions = {"Python": platform.python_version()}
    for name in PACKAGES if package is None else (*PACKAGES, package):
        # Of torch and vLLM, each kind of machine has another build of the same version: 2.9.0+cpu.
        if found := _version(name):
            versions[name] = found.partition("+")[0]
    code = content_hash({path.relative_to(CODE).as_posix(): file_hash(path) for path in sorted(CODE.rglob("*.py"))})
    model = sampled_fingerprint(folder) if folder.is_dir() else ""
    node_id, address = ray.get_runtime_context().get_node_id(), ray.util.get_node_ip_address()
    return NodeState(node_id, address, versions, code, str(folder), model)


def different_nodes(asked: Needs, folder: Path, package: str | None) -> tuple[int, list[str]]:
    """The number of nodes that a replica fits on, and what is different on each where something is."""
    here, task = state_of(folder, package), ray.remote(state_of)
    fitting = [node["NodeID"] for node in ray.nodes() if node["Alive"] and room_on(node, asked)]
    asking = [
        task.options(num_cpus=0, scheduling_strategy=NodeAffinitySchedulingStrategy(node_id, soft=False)).remote(
            folder, package
        )
        for node_id in fitting
    ]
    found = [(state.address, here.difference(state)) for state in ray.get(asking)]
    return len(fitting), [f"{address} has {difference}" for address, difference in found if difference]


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:  # one may be distributed under several names, as vLLM is
        names = packages_distributions().get(package)
        return version(names[0]) if names else None


class Replica:
    """The actor. `answer` runs as long as it does, in a thread of its own; `feed` puts work before it."""

    def __init__(self) -> None:
        self._fed: SimpleQueue[Job | None] = SimpleQueue()

    def state(self, folder: Path, package: str | None) -> NodeState:
        """That of this node."""
        return state_of(folder, package)

    def feed(self, job: Job | None) -> None:
        """Have the requests answered after those that were fed before; None: end when they are."""
        self._fed.put(job)

    def answer(self, load: Load, gpus: bool) -> Iterator[Result | Unanswered | Raised | None]:
        """Load the engine, say so by None, give the results of all that is fed and what has none; an error is last."""
        if not gpus:
            os.environ[VISIBLE] = ""
        try:
            with closing(load()) as engine:
                yield None
                while (job := self._fed.get()) is not None:
                    method, requests = job
                    results: Iterator[Result]
                    results = engine.generate(requests) if method == "generate" else engine.score(requests)  # type: ignore[arg-type]
                    unanswered = {request.request_id for request in requests}
                    for result in results:
                        unanswered.discard(result.request_id)
                        yield result
                    if unanswered:
                        yield Unanswered(frozenset(unanswered))
        except Exception as error:
            yield Raised(portable(error))
