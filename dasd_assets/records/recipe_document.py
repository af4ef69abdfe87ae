"""The recipe as a record keeps it: what a model was registered or trained with, fit for others' eyes."""

import json
from pathlib import Path

from dasd_resources.recipe import Recipe


def described(recipe: Recipe) -> dict[str, object]:
    """The recipe as plain values, for a record that others may see: of this machine's paths only the last part.

    Where prompts land is left out: no row depends on it.
    """
    document = dict(json.loads(recipe.model_dump_json()))
    del document["automation"]["landing"]
    for part in (document["teacher"], document["student"]):
        part["model"] = Path(part["model"]).name if Path(part["model"]).is_absolute() else part["model"]
    for benchmark in document["evaluation"]["benchmarks"]:
        benchmark["path"] = Path(benchmark["path"]).name
    return document
