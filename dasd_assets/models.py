"""The teacher and the untrained student, registered as checkpoints: the parents of all that are trained later.

Recipe -> `checkpoints` (named `teacher` and `student`). The data version is the model's fingerprint: new weights, a
new tokenizer, chat template or system prompt make everything stale that used the old ones.
"""

import json
from datetime import datetime

import dagster as dg
import polars as pl

from dasd_assets.records.current_checkpoint import registration_time
from dasd_assets.records.declaration import declare
from dasd_assets.records.provenance import origin
from dasd_assets.records.recipe_document import described
from dasd_assets.rules.asset_names import ROLES
from dasd_assets.rules.rule import Rule
from dasd_resources.inference.engines import Engines, PromptedModel
from dasd_resources.recipe import Recipe
from dasd_resources.storage.warehouse import Warehouse

MODEL_VERSION = "1"
MODELS = Rule("models", MODEL_VERSION)


def checkpoint_row(recipe: Recipe, model: PromptedModel, role: str, path: str, at: datetime) -> pl.DataFrame:
    """The `checkpoints` row of an untrained model: its id is its fingerprint. path: as it is stored."""
    return pl.DataFrame(
        {
            "checkpoint_id": [model.fingerprint],
            "recipe": [recipe.name],
            "name": [role],
            "stage": [ROLES[role]],
            "path": [path],
            "content_hash": [model.fingerprint],
            "recipe_document": [json.dumps(described(recipe), ensure_ascii=False)],
            "materialized_at": [at],
        }
    )


def build(recipe: Recipe) -> list[dg.AssetsDefinition]:
    """`teacher_model` and `student_model`."""
    return [_model(recipe, "teacher"), _model(recipe, "student")]


def _model(recipe: Recipe, role: str) -> dg.AssetsDefinition:
    spec = recipe.teacher if role == "teacher" else recipe.student
    declared = declare(recipe, f"{role}_model", "checkpoints", rules=[MODELS], parts=["name"], rows=f"name = '{role}'")

    @declared.asset(
        group="inputs",
        kinds={"huggingface"},
        description=f"One row: the {role} as the recipe prompts it, with its fingerprint and the folder of its files.",
    )
    def model(context: dg.AssetExecutionContext, warehouse: Warehouse, engines: Engines) -> dg.MaterializeResult:
        found = engines.find(spec, f"{role}.model")
        path = warehouse.stored_path(found.path)
        with warehouse.commit(origin(context)) as transaction:
            key = {"checkpoint_id": found.fingerprint, "recipe": recipe.name, "name": role}
            at = registration_time(transaction, recipe.name, role)
            transaction.replace("checkpoints", key, checkpoint_row(recipe, found, role, path, at))
        return dg.MaterializeResult(
            data_version=dg.DataVersion(found.fingerprint),
            metadata=declared.result(
                warehouse,
                1,
                key,
                path=dg.MetadataValue.path(str(found.path)),
                engine=spec.engine,
                dtype=spec.dtype,
                server=dg.MetadataValue.json(spec.server.model_dump(mode="json")) if spec.server else None,
            ),
        )

    return model
