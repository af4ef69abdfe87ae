"""What `dasd evaluate` is asked to evaluate -> a row of `checkpoints`, and how the model is prompted.

It may be a name in the recipe's chain (`student`, `t060`), the id of any stored checkpoint, a folder, a hub model in
this machine's cache, or a YAML file with the keys of a recipe's `teacher`: the way to a server, or to another prompt.
"""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import polars as pl

from dasd_assets.commands.evaluated_benchmarks import Named
from dasd_assets.evaluation.answers import Checkpoint
from dasd_assets.evaluation.evaluations import chain
from dasd_assets.evaluation.questions import longest_prompt
from dasd_assets.records.current_checkpoint import folder_of
from dasd_assets.records.recipe_document import described
from dasd_assets.rules.asset_names import ROLES
from dasd_resources.inference.engine_catalogue import ENGINES
from dasd_resources.inference.engines import Engines
from dasd_resources.recipe import Model, Recipe, RecipeError, load_model
from dasd_resources.storage.warehouse import Row, Warehouse

YAML = (".yaml", ".yml")


@dataclass(frozen=True)
class Entry:
    """A model that is not stored yet, and the name that its row gets."""

    name: str
    spec: Model


def checkpoint_of(warehouse: Warehouse, engines: Engines, recipe: Recipe, asked: str, origin: str) -> Checkpoint:
    """The checkpoint that `asked` names; entered into `checkpoints` where it is not there. Raises RecipeError.

    A model from elsewhere is known by its fingerprint, as the untrained student is, and belongs to no recipe.
    """
    if known := known_checkpoint(warehouse, engines, recipe, asked):
        return known
    entry = entry_of(recipe, asked)
    model = engines.find(entry.spec, asked)
    if stored := _stored(warehouse, model.fingerprint):
        return Checkpoint(model.fingerprint, stored["name"], entry.spec)
    row = {
        "checkpoint_id": model.fingerprint,
        "recipe": None,
        "name": entry.name,
        "path": warehouse.stored_path(model.path),
        "content_hash": model.fingerprint,
        "recipe_document": json.dumps(_document(recipe, entry), ensure_ascii=False),
        "materialized_at": datetime.now(UTC),
    }
    with warehouse.commit(origin) as transaction:
        query = "SELECT count(*) FROM checkpoints WHERE checkpoint_id = $id"
        if not transaction.read(query, {"id": model.fingerprint}).item():
            transaction.append_missing("checkpoints", pl.DataFrame([row], schema_overrides={"recipe": pl.String}))
    return Checkpoint(model.fingerprint, entry.name, entry.spec)


def known_checkpoint(warehouse: Warehouse, engines: Engines, recipe: Recipe, asked: str) -> Checkpoint | None:
    """A checkpoint of the recipe's chain by its name, or any that is stored by its id or folder; None: no such one."""
    known = {one.name: one for one in chain(warehouse, engines, recipe)}
    if asked in known:
        return known[asked]
    stored = _stored(warehouse, asked)
    return None if stored is None else _as_stored(warehouse, engines, recipe, stored)


def require_room(engines: Engines, checkpoint: Checkpoint, named: Sequence[Named]) -> None:
    """Raise RecipeError where a question and the longest answer exceed the model's context: all would fail.

    A server knows its own, and refuses what is longer.
    """
    if ENGINES[checkpoint.spec.engine].served or ENGINES[checkpoint.spec.engine].absent:
        return
    model = engines.find(checkpoint.spec, f"checkpoint {checkpoint.checkpoint_id}")
    for one in named:
        num_tokens = longest_prompt(model.chat, one.rows)
        if num_tokens + one.benchmark.max_tokens > model.context:
            raise RecipeError(
                f"{one.benchmark.name}: max_tokens {one.benchmark.max_tokens:,} and its longest question's "
                f"{num_tokens:,} exceed the context of {model.context:,}: "
                + (f"--max-tokens {left}" if (left := model.context - num_tokens) > 0 else "leave this benchmark out")
            )


def _stored(warehouse: Warehouse, asked: str) -> Row | None:
    """The newest row of a checkpoint id, or of a trained checkpoint's folder."""
    query = """SELECT * FROM checkpoints WHERE checkpoint_id = $asked OR (dataset IS NOT NULL AND path = $path)
        ORDER BY materialized_at DESC LIMIT 1"""
    found = warehouse.read(query, {"asked": asked, "path": warehouse.stored_path(Path(asked).resolve())}).to_dicts()
    return found[0] if found else None


def _as_stored(warehouse: Warehouse, engines: Engines, recipe: Recipe, row: Row) -> Checkpoint:
    """A stored checkpoint, prompted by this recipe if it is of it, else by the one it was registered with."""
    role = "teacher" if row["name"] == "teacher" else "student"
    own = recipe.teacher if role == "teacher" else recipe.student
    document = json.loads(row["recipe_document"] or "{}")
    spec = own if row["recipe"] == recipe.name or role not in document else Model.model_validate(document[role])
    folder = folder_of(warehouse, engines, recipe, row)
    spec = spec.model_copy(update={"model": str(folder)})
    identifier, name = str(row["checkpoint_id"]), str(row["name"])
    if row["dataset"] is None:
        found = engines.find(spec, f"checkpoint {identifier}").fingerprint
        if found != identifier:
            raise RecipeError(
                f"checkpoint {identifier}: {folder} holds model {found} now; give that folder to evaluate it"
            )
    return Checkpoint(identifier, name, spec)


def entry_of(recipe: Recipe, asked: str) -> Entry:
    """What a name that no checkpoint has stands for: a role of the recipe, a YAML file, a folder or a hub model."""
    if asked in ROLES:
        return Entry(asked, recipe.teacher if asked == "teacher" else recipe.student)
    if asked.endswith(YAML) and Path(asked).is_file():
        return Entry(Path(asked).stem, load_model(Path(asked)))
    folder = Path(os.path.expanduser(asked))
    # Two parts of a folder's path, as a hub model has, so that no folder is taken for a stage of a recipe.
    name = "/".join(folder.resolve().parts[-2:]) if folder.is_dir() else asked
    return Entry(name, recipe.student.model_copy(update={"model": asked}))


def _document(recipe: Recipe, entry: Entry) -> dict[str, object]:
    """The recipe whose student this model stood in for, so that it can be asked again, and audited."""
    return described(recipe if entry.name in ROLES else recipe.model_copy(update={"student": entry.spec}))
