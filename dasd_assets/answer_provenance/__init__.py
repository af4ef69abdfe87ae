"""Where the sentences of the checkpoints' own answers come from (report §4, Figures 5 and 6; arXiv 2512.20908).

`evaluations`, `answer_sentences`, `answer_sentence_types` -> figures and tables, in the web UI and as a page in
DASD_HOME/reports. No table: every number follows from those three.

| module | what it is about |
| --- | --- |
| `findings` | the sentences, and what is found in them |
| `figures` | the pictures |
| `page` | the tables, and the page |
"""

from pathlib import Path

import dagster as dg

from dasd_assets.answer_logprobs import answers_read
from dasd_assets.answer_provenance.figures import pictures
from dasd_assets.answer_provenance.findings import find
from dasd_assets.answer_provenance.page import PAGE, page, tables
from dasd_assets.records.declaration import declare
from dasd_assets.records.plots import inline, png
from dasd_assets.rules.answer_types import ANSWER_TYPES
from dasd_assets.rules.answers import ANSWERS
from dasd_assets.rules.rule import Rule
from dasd_assets.rules.type_shares import TYPE_SHARES
from dasd_resources.inference.engines import Engines
from dasd_resources.recipe import Recipe
from dasd_resources.storage.warehouse import Warehouse
from dasd_resources.whole_files import write_whole

PROVENANCE_VERSION = "1"
PROVENANCE = Rule("provenance", PROVENANCE_VERSION)
PREFIX = "provenance_"  # of its pictures, which stand beside those of the report


def build(recipe: Recipe) -> list[dg.AssetsDefinition]:
    """`answer_provenance`, for a recipe with `provenance`."""
    return [] if recipe.provenance is None else [_answer_provenance(recipe)]


def _answer_provenance(recipe: Recipe) -> dg.AssetsDefinition:
    declared = declare(
        recipe,
        "answer_provenance",
        reads={
            "answer_sentences": "answer_sentences",
            "answer_sentence_types": "answer_sentence_types",
            **answers_read(recipe),
        },
        models=["teacher_model", "student_model"],
        rules=[PROVENANCE, ANSWERS, ANSWER_TYPES, TYPE_SHARES],
        parts=["name"],
    )

    @declared.asset(
        group="training_results",
        kinds={"matplotlib"},
        description="Whose sentences the checkpoints' own answers consist of, by position, in right and wrong answers "
        "and from stage to stage; also as a page in DASD_HOME/reports.",
    )
    def answer_provenance(
        context: dg.AssetExecutionContext, warehouse: Warehouse, engines: Engines
    ) -> dg.MaterializeResult:
        found = find(warehouse, engines, recipe)
        figures = pictures(found)
        folder = Path(warehouse.home) / "reports" / recipe.name
        folder.mkdir(parents=True, exist_ok=True)
        for name, figure in figures.items():
            write_whole(folder / f"{PREFIX}{name}.png", png(figure))
        write_whole(folder / PAGE, page(found, {name: f"{PREFIX}{name}.png" for name in figures}).encode())
        return dg.MaterializeResult(
            metadata={
                "sample": found.sample,
                "num_answers": found.num_answers,
                "num_typed": found.num_typed,
                **tables(found),
                **{name: inline(figure) for name, figure in figures.items()},
                "page": dg.MetadataValue.path(str(folder / PAGE)),
                **declared.code_version.metadata,
            }
        )

    return answer_provenance
