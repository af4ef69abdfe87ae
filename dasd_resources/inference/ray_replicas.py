"""RayReplicas: replicas of a model on the nodes of a Ray cluster, as one InferenceEngine.

Each is an actor in a placement group of its own that runs one of our engines, all of it on one node. They are fed the
longest requests first, a few at a time, so that one that joins late finds work, and all end together; results are
passed on as they come. What a replica had that is lost, with its process or its node, is asked of others; another takes
its place as soon as there is one.
"""

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Generic

import ray
from ray.exceptions import RayError
from ray.util import placement_group, placement_group_table, remove_placement_group
from ray.util.placement_group import PlacementGroup
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from dasd_resources.inference.engine import Completion, Failure, GenerationRequest, Score, ScoringRequest
from dasd_resources.inference.engine_worker import SECONDS_TO_END, Load, Method, Raised
from dasd_resources.inference.engine_workers import MAX_DEATHS, RUNS_AT_ONCE
from dasd_resources.inference.limits import Request
from dasd_resources.inference.ray_cluster import Needs, as_options, join, leave, num_places, too_small
from dasd_resources.inference.ray_node import NodeState, Replica, Result, Unanswered, state_of
from dasd_resources.recipe import LOCAL, RecipeError

LEAST = 8  # asked of a replica at a time, while there are so many
# Enough that the end of a part, when ever fewer run, costs little: an engine ends one part before it begins the next.
MOST = 16 * RUNS_AT_ONCE
MAX_LOSSES = 3  # of each replica, one after another with no result of any between them
POLL_SECONDS = 1.0
FEED = "feed"  # the actor's thread for requests that come while it answers others
ACTOR = ray.remote(concurrency_groups={FEED: 1})(Replica)
CURE = "lower the engine's parallel size or ray.num_cpus, add such a node, or set ray.gpus: false where there is no GPU"

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Placing:
    """Where the replicas run. patience_s: how long there may be a place for none of them."""

    address: str
    needs: Needs
    patience_s: float


@dataclass(eq=False)
class Place(Generic[Request]):
    """A replica, from when its place is asked for: what it was asked, and what it is to say next."""

    group: PlacementGroup
    actor: ray.actor.ActorHandle
    says: ray.ObjectRef | ray.ObjectRefGenerator  # its node's state, then its answers
    node: NodeState | None = None
    is_loaded: bool = False
    asked: dict[str, Request] = field(default_factory=dict)


@dataclass(frozen=True)
class Lost:
    """A replica that answers no more, and why."""

    error: Exception


class RayReplicas:
    """Up to `num` replicas of the engine that `load` makes of a folder. package: the engine's own, if it has one."""

    def __init__(self, load: Load, num: int, placing: Placing, folder: Path, package: str | None) -> None:
        self._load, self._num, self._placing, self._folder, self._package = load, num, placing, folder, package
        self._places: list[Place] = []
        self._num_losses = self._num_unloaded = 0  # in a row, and before they were ready; of a call
        self._placed_at = time.monotonic()  # when some replica last had a place
        join(placing.address)
        try:
            self._expected = state_of(folder, package)
            if placing.address == LOCAL and not num_places(placing.needs):
                raise RecipeError(f"no replica fits this machine: {too_small(placing.needs)}; {CURE}")
        except BaseException:
            leave()
            raise

    def generate(self, requests: Sequence[GenerationRequest]) -> Iterator[Completion | Failure]:
        """Sample every request. Raises RecipeError where no replica finds a place, or a node computes otherwise."""
        return self._run("generate", requests, lambda r: len(r.prompt_token_ids) + r.max_tokens)  # type: ignore[return-value]

    def score(self, requests: Sequence[ScoringRequest]) -> Iterator[Score | Failure]:
        """Score every sequence. Raises RecipeError as `generate` does."""
        return self._run("score", requests, lambda r: len(r.token_ids))  # type: ignore[return-value]

    def close(self) -> None:
        """End the replicas: those at rest close their engine first."""
        try:
            resting = [place for place in self._places if place.is_loaded and not place.asked]
            for place in resting:
                place.actor.feed.options(concurrency_group=FEED).remote(None)
            if resting:
                ray.wait([place.says for place in resting], num_returns=len(resting), timeout=SECONDS_TO_END)
            for place in list(self._places):
                self._end(place)
        finally:
            leave()

    def _run(
        self, method: Method, requests: Sequence[Request], length: Callable[[Request], int]
    ) -> Iterator[Completion | Score | Failure]:
        deaths = Counter[str]()

        def order(request: Request) -> tuple[int, int]:
            """What comes last goes out first: the longest, but what has lost replicas after all else."""
            return -deaths[request.request_id], length(request)

        waiting = sorted(requests, key=order)
        self._num_losses, self._num_unloaded, self._placed_at = 0, 0, time.monotonic()
        try:
            while waiting or any(place.asked for place in self._places):
                # 1. Places are asked for in stead of those that were lost, and whoever has little to do gets more.
                self._ask_for_places(len(waiting))
                self._feed(method, waiting, deaths)
                # 2. Results are passed on; what a lost replica had waits again, but for what has lost too many.
                for place, message in self._messages():
                    if isinstance(message, Lost):
                        lost: list[Request] = self._lose(place, message.error)
                        if self._is_alive(place.node):  # else it was the node, not what was asked
                            deaths.update(request.request_id for request in lost)
                        waiting += [r for r in lost if deaths[r.request_id] < MAX_DEATHS]
                        waiting.sort(key=order)
                        yield from (_given_up(r, message) for r in lost if deaths[r.request_id] >= MAX_DEATHS)
                    elif isinstance(message, Unanswered):
                        place.asked = {key: r for key, r in place.asked.items() if key not in message.request_ids}
                    else:
                        self._num_losses = 0
                        place.asked.pop(message.request_id, None)
                        yield message
        finally:
            # Of a caller who has stopped listening: nobody may get the results of its requests.
            for place in [place for place in self._places if place.asked]:
                self._end(place)

    def _ask_for_places(self, num_requests: int) -> None:
        """As many as are missing, but no more than there are requests. Raises RecipeError if none is to be had.

        What could not be loaded is not tried again: the call goes on with as many fewer.
        """
        while len(self._places) < min(self._num - self._num_unloaded, num_requests):
            group = placement_group([self._placing.needs], strategy="STRICT_PACK")
            actor = ACTOR.options(
                **as_options(self._placing.needs),
                scheduling_strategy=PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=0),
            ).remote()
            self._places.append(Place(group, actor, actor.state.remote(self._folder, self._package)))
        if any(place.node for place in self._places) or any(map(_is_placed, self._places)):
            self._placed_at = time.monotonic()
        elif num_requests and time.monotonic() - self._placed_at > self._placing.patience_s:
            raise RecipeError(
                f"no replica had a place on the Ray cluster for {self._placing.patience_s:g} s (ray.patience_s): "
                f"{too_small(self._placing.needs)}; {CURE}"
            )

    def _feed(self, method: Method, waiting: list[Request], deaths: Counter[str]) -> None:
        """Give everyone who has little to do more of what waits; what is given leaves the list.

        Requests that have lost all replicas but one go out a few at a time: one of them may be the cause.
        """
        share = allowance(len(waiting) + sum(len(place.asked) for place in self._places), self._num)
        for place in sorted(self._places, key=lambda place: len(place.asked)):
            most = LEAST if waiting and deaths[waiting[-1].request_id] == MAX_DEATHS - 1 else share
            if waiting and place.is_loaded and len(place.asked) <= most // 2:
                part = waiting[len(place.asked) - most :][::-1]
                del waiting[-len(part) :]
                place.asked.update({request.request_id: request for request in part})
                place.actor.feed.options(concurrency_group=FEED).remote((method, part))

    def _messages(self) -> Iterator[tuple[Place, Result | Unanswered | Lost]]:
        """Results, and replicas that are lost, as soon as there is one; those who begin are seen to meanwhile."""
        by_ref = {place.says: place for place in self._places}
        first, others = ray.wait(list(by_ref), timeout=POLL_SECONDS, fetch_local=False)
        more = ray.wait(others, num_returns=len(others), timeout=0, fetch_local=False)[0] if first and others else []
        for ref in [*first, *more]:
            place, message = by_ref[ref], _said(ref)
            if isinstance(message, NodeState):
                self._begin(place, message)
            elif message is None:
                place.is_loaded = True
            else:
                yield place, message

    def _begin(self, place: Place, node: NodeState) -> None:
        """Have the engine loaded on a node. Raises RecipeError if it would compute something else there."""
        if difference := self._expected.difference(node):
            raise RecipeError(
                f"a replica on {node.address} would not give the rows of this machine: it has {difference}; make both "
                "equal, or take that node out of the cluster"
            )
        # Of what only the nodes have, the first says what all are to have.
        self._expected = replace(self._expected, versions={**node.versions, **self._expected.versions})
        place.node, place.says = node, place.actor.answer.remote(self._load, "GPU" in self._placing.needs)

    def _lose(self, place: Place, error: Exception) -> list[Request]:
        """What a replica that is no more had not answered. Raises an error if no other can be expected to do better."""
        self._end(place)
        if isinstance(error, RecipeError):
            raise error
        self._num_losses += 1
        self._num_unloaded += not place.is_loaded and self._is_alive(place.node)
        if self._num_unloaded == self._num or self._num_losses > MAX_LOSSES * self._num:
            raise RuntimeError(
                f"the model's replicas on Ray were lost one after another, the last by {error}"
            ) from error
        log.warning(
            "a replica on %s is lost (%s); the %d requests that it had are asked of others",
            place.node.address if place.node else "no node yet",
            error,
            len(place.asked),
        )
        return list(place.asked.values())

    def _is_alive(self, node: NodeState | None) -> bool:
        return node is not None and any(one["NodeID"] == node.node_id and one["Alive"] for one in ray.nodes())

    def _end(self, place: Place) -> None:
        self._places.remove(place)
        ray.kill(place.actor)
        remove_placement_group(place.group)


def allowance(num_left: int, num_replicas: int) -> int:
    """How many requests one replica may have at a time, of so many that are not answered yet."""
    return min(MOST, max(LEAST, -(-num_left // num_replicas)))


def _is_placed(place: Place) -> bool:
    return bool(placement_group_table(place.group)["state"] == "CREATED")


def _said(ref: "ray.ObjectRef | ray.ObjectRefGenerator") -> NodeState | Result | Unanswered | Lost | None:
    """What a replica has to say, where there is something."""
    try:
        message = ray.get(next(ref) if isinstance(ref, ray.ObjectRefGenerator) else ref)
    except RayError as error:
        return Lost(error)
    except StopIteration:
        return Lost(RuntimeError("it ended by itself"))
    return Lost(message.error) if isinstance(message, Raised) else message


def _given_up(request: Request, lost: Lost) -> Failure:
    reason = f"{MAX_DEATHS} replicas were lost while they had it, the last by {lost.error}"
    return Failure(request.request_id, reason)
