"""The connection of this process to a Ray cluster, and what a replica takes of it.

A process has one connection, shared by whoever uses it at the time; with the last of them it ends, and with it all
that was started through it, as when this process is killed. A cluster `local` is begun for it, and ends with it, too.
"""

import logging
import os
import socket
import threading
from collections.abc import Mapping
from dataclasses import dataclass

import ray

from dasd_resources.recipe import LOCAL, Model, RayCluster, RecipeError

LOCAL_STORE_BYTES = 2**29  # of results that were not fetched yet; a local cluster would take a third of the memory
SECONDS_TO_CONNECT = 10.0
Needs = dict[str, float]  # amounts of a node, by Ray's names


@dataclass
class Connection:
    """To the cluster at an address. left: set when nobody needs it any more."""

    address: str
    left: threading.Event
    num_users: int = 0


_connection: Connection | None = None
_lock = threading.Lock()


def join(address: str) -> None:
    """Connect this process, if it is not. Raises RecipeError where there is no such cluster, or one of another Ray."""
    global _connection
    with _lock:
        if _connection is None:
            _connection = Connection(address, _connect(address))
        if _connection.address != address:
            raise RecipeError(
                f"ray.address: {address} and {_connection.address} are asked for at once, and a process has one Ray "
                "cluster; give both models the same"
            )
        _connection.num_users += 1


def leave() -> None:
    """Disconnect, if nobody else of this process is using the cluster: what was started there ends."""
    global _connection
    with _lock:
        assert _connection is not None, "it was joined"
        _connection.num_users -= 1
        if not _connection.num_users:
            ray.shutdown()
            _connection.left.set()
            _connection = None


def _connect(address: str) -> threading.Event:
    """Connect from a thread that waits until the event that this returns is set.

    A cluster begun here ends with the thread that began it, as Linux has it, and not every caller's lives for long. Nor
    does Ray replace the handler of SIGTERM from another thread than the main one.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # or it reports to its makers
    begun, left, errors = threading.Event(), threading.Event(), list[Exception]()

    def hold() -> None:
        try:
            _require_listener(address)
            own = {"include_dashboard": False, "object_store_memory": LOCAL_STORE_BYTES} if address == LOCAL else {}
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, **own)
        except Exception as error:
            errors.append(error)
        begun.set()
        if not errors:
            left.wait()

    threading.Thread(target=hold, name="ray", daemon=True).start()
    begun.wait()
    if errors:
        raise RecipeError(
            f"ray.address: {address}: no cluster could be joined ({errors[0]}); start one (ray start --head, and on "
            "other machines ray start --address=HOST:PORT), with this machine in it, or write local; if it asks for a "
            "token, set RAY_AUTH_MODE=token here"
        ) from errors[0]
    return left


def _require_listener(address: str) -> None:
    """Raise OSError where nobody listens at host:port: Ray tries twenty times, a second or nearly a minute each."""
    host, colon, port = address.rpartition(":")
    if colon:
        socket.create_connection((host, int(port)), SECONDS_TO_CONNECT).close()


def needs(spec: Model, cluster: RayCluster) -> Needs:
    """What a replica of the model takes, on one node."""
    gpus = {"GPU": float(spec.num_gpus_each)} if cluster.gpus else {}
    return {"CPU": float(cluster.num_cpus), **gpus, **cluster.resources}


def as_options(asked: Needs) -> dict[str, object]:
    """The same as Ray's options of an actor or a task."""
    others = {name: amount for name, amount in asked.items() if name not in ("CPU", "GPU")}
    return {"num_cpus": asked["CPU"], "num_gpus": asked.get("GPU", 0.0), "resources": others}


def room_on(node: Mapping[str, Mapping[str, float]], asked: Needs) -> int:
    """Replicas that a node, as `ray.nodes` describes it, has room for, were nothing else on it."""
    return min(int(node["Resources"].get(name, 0) // amount) for name, amount in asked.items())


def num_places(asked: Needs) -> int:
    """Replicas that the nodes of the cluster have room for, were nothing else on them."""
    return sum(room_on(node, asked) for node in ray.nodes() if node["Alive"])


def too_small(asked: Needs) -> str:
    """What a replica takes and what the nodes have, for people."""
    nodes = [node for node in ray.nodes() if node["Alive"]]
    others = {name for node in nodes for name in node["Resources"]} & asked.keys() | {"CPU", "GPU"}
    has = "; ".join(
        f"{node['NodeManagerAddress']}: {amounts({name: node['Resources'].get(name, 0) for name in sorted(others)})}"
        for node in nodes
    )
    free = amounts({name: ray.available_resources().get(name, 0) for name in sorted(others)})
    return f"each takes {amounts(asked)} of one node, and the cluster has {has} ({free} free in all)"


def amounts(resources: Needs) -> str:
    """Such as `2 GPU, 1 CPU`."""
    return ", ".join(f"{amount:g} {name}" for name, amount in resources.items())
