"""Checks of the Ray cluster that a model's replicas run on: that it can be joined, has room, and computes the same."""

from dasd_assets.commands.check.outcome import CheckFailed, CheckWarning
from dasd_resources.inference.engine_catalogue import ENGINES
from dasd_resources.inference.engines import PromptedModel, require_ray
from dasd_resources.recipe import RayCluster


def cluster(model: PromptedModel, asked: RayCluster) -> str:
    """There is room for the replicas, and every node has the versions, the code and the model of this machine."""
    require_ray()
    from dasd_resources.inference.ray_cluster import amounts, join, leave, needs, num_places, too_small
    from dasd_resources.inference.ray_node import different_nodes

    each, wanted = needs(model.spec, asked), model.spec.replicas
    join(asked.address)
    try:
        room = num_places(each)
        if not room:
            raise CheckFailed(f"no replica has room: {too_small(each)}")
        nodes, different = different_nodes(each, model.path, ENGINES[model.spec.engine].package)
        if different:
            raise CheckFailed("; ".join(different))
    finally:
        leave()
    found = f"room for {room} replicas of {amounts(each)} on {nodes} node{'s' if nodes > 1 else ''}"
    if room < wanted:
        raise CheckWarning(f"{found}; the other {wanted - room} begin when nodes join")
    return f"{found}, {wanted} wanted; versions, code and files are those of this machine"
