"""The recipe as it is stored with a checkpoint: without this machine's paths, so that it can be shared."""

import json
from pathlib import Path

from dasd_resources.recipe import Recipe


def described(recipe: Recipe) -> dict[str, object]:
    """The recipe as plain values; of absolute paths only the last part.

    The landing folder and the experiments that it names are left out: no row depends on them.
    """
    document = dict(json.loads(recipe.model_dump_json()))
    del document["automation"]["landing"], document["experiments"]
    for part in (document["teacher"], document["student"]):
        part["model"] = Path(part["model"]).name if Path(part["model"]).is_absolute() else part["model"]
    for benchmark in document["evaluation"]["benchmarks"]:
        benchmark["path"] = benchmark["path"] and Path(benchmark["path"]).name
    return document
