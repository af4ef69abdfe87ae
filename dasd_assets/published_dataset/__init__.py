"""The training sets as a dataset for others: examples with their texts -> Parquet files and a card (no table).

| module | makes |
| --- | --- |
| `examples` | the examples of a training set with text, question and lineage, in the order of their ids |
| `forms` | from an example to a row of a form: messages, prompt-completion, ShareGPT, the report's release |
| `shards` | Parquet files of equal numbers of rows |
| `composition` | what the card says, counted in the warehouse |
| `card` | README.md: the card, as the Hugging Face hub reads it |
| `release` | the folder as a whole, complete from the moment it has its name |
| `hub` | the upload, which only a command asks for |

One snapshot of the warehouse gives one sequence of bytes: rows come in the order of their ids, and no file
holds a time.
"""

from pathlib import Path

import dagster as dg

from dasd_assets.published_dataset.release import RELEASE, write_release
from dasd_assets.records.declaration import declare
from dasd_assets.records.markdown import table
from dasd_assets.records.quarantine import usable_batches
from dasd_assets.rules.asset_names import CONTROL_ASSET, MIXED, dataset_asset, generation_asset, selection_asset
from dasd_assets.rules.candidates import CANDIDATES
from dasd_assets.rules.checkpoints import CHAIN, trained_names
from dasd_assets.rules.filters.catalogue import FILTERING
from dasd_resources.inference.engines import Engines
from dasd_resources.recipe import Recipe
from dasd_resources.storage.warehouse import Warehouse

EXPORTS = "exports"
TOLD_ON_THE_CARD = (
    "decontamination.min_share",
    "decontamination.ngram_size",
    "filters.require_correct",
    "filters.required",
    "mixed_policy.continuation_temperature",
    "selection.divergence",
    "selection.policy",
    "selection.score",
)


def build(recipe: Recipe) -> list[dg.AssetsDefinition]:
    """`published_dataset`, where the recipe has a section `export`."""
    settings = recipe.export
    if settings is None:
        return []
    declared = declare(
        recipe,
        "published_dataset",
        reads={
            "sft_examples": list(map(dataset_asset, trained_names(recipe))),
            "selected_responses": [*map(selection_asset, recipe.datasets), CONTROL_ASSET],
            "selection_rules": [*map(selection_asset, recipe.datasets), dataset_asset(MIXED)],
            "responses": list(map(generation_asset, recipe.datasets)),
            "response_verdicts": "response_verdicts",
            "prompts": "prompts",
            "rejected_prompts": "prompts",
            "continuation_verdicts": "continuation_verdicts",
            "student_rollouts": "student_rollouts",
            "quarantined_batches": (),
            "withdrawn_prompts": (),
            **({"held_out_questions": "held_out_questions"} if recipe.decontamination else {}),
        },
        looks_up={"teacher_continuations": "teacher_continuations"},
        models=["teacher_model", "student_model"],
        rules=[RELEASE, CANDIDATES, FILTERING, CHAIN],
        parts=["export", *TOLD_ON_THE_CARD],
    )

    @declared.asset(
        group="training_results",
        kinds={"parquet"},
        description="The training sets in DASD_HOME/exports: Parquet files with a card, for `datasets.load_dataset`.",
    )
    def published_dataset(
        context: dg.AssetExecutionContext, warehouse: Warehouse, engines: Engines
    ) -> dg.MaterializeResult:
        batches = usable_batches(context.instance, warehouse)
        tags = declared.read_tags(context.instance, batches)
        folder = Path(warehouse.home) / EXPORTS / recipe.name
        manifest = write_release(warehouse, engines, recipe, settings, folder)
        return dg.MaterializeResult(
            data_version=dg.DataVersion(manifest.content_hash[:16]),
            tags=tags,
            metadata={
                "folder": dg.MetadataValue.path(str(folder)),
                "card": dg.MetadataValue.path(str(folder / "README.md")),
                "dagster/row_count": sum(part.num_rows for part in manifest.configs),
                "configs": table(["config", "num_rows", "num_files"], [vars(part) for part in manifest.configs]),
                "snapshot_id": manifest.snapshot_id,
                **declared.code_version.metadata,
            },
        )

    return [published_dataset]
