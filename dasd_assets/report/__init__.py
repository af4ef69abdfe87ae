"""The report of a distillation (docs/report.md): what was made, dropped and gained, and the report's figures for it.

Every stage's tables -> a page, `DASD_HOME/reports/<recipe>/index.html`, its figures as files beside it, and numbers
that the web UI plots over time. No table: everything follows from the others, so `dasd report` can write it anew.

| module | what it is about |
| --- | --- |
| `findings` | what is read from the warehouse |
| `one_response` | the response that is shown sentence by sentence |
| `figures` | the pictures |
| `captions` | what each picture shows, what to look for, and which figure of the technical report it answers to |
| `wording` | findings in sentences |
| `page` | the page, from the template `page.html`, and its files |
"""

import dagster as dg

from dasd_assets.evaluation.accuracy_plots import accuracy_table
from dasd_assets.evaluation.metrics import METRICS
from dasd_assets.mixed_policy.distilled_student import looked_up
from dasd_assets.records.declaration import Declaration, declare
from dasd_assets.records.plots import inline
from dasd_assets.records.quarantine import usable_batches
from dasd_assets.records.table_metadata import tidy
from dasd_assets.report.figures import pictures
from dasd_assets.report.findings import ReportData, drop_table, figures_over_time, find
from dasd_assets.report.page import PAGE, report_folder, write
from dasd_assets.rules.asset_names import CONTROL_ASSET, generation_asset, selection_asset
from dasd_assets.rules.candidates import CANDIDATES
from dasd_assets.rules.checkpoints import chain_reads
from dasd_assets.rules.filters.catalogue import FILTERING
from dasd_assets.rules.rollouts import ROLLOUTS
from dasd_assets.rules.rule import Rule
from dasd_assets.rules.scores import DIVERGENCE
from dasd_assets.rules.statistics.comparison import STATISTICS
from dasd_resources.inference.engines import Engines
from dasd_resources.recipe import Recipe
from dasd_resources.storage.warehouse import Warehouse

__all__ = ["ReportData", "build", "find", "pictures", "report_folder", "write"]

REPORT_VERSION = "3"
REPORT = Rule("report", REPORT_VERSION)


def build(recipe: Recipe) -> list[dg.AssetsDefinition]:
    """`distillation_report`."""
    declared = _declared(recipe)

    @declared.asset(
        group="training_results",
        kinds={"matplotlib"},
        description="What the distillation made, dropped and gained, with the technical report's figures, as a page in "
        "DASD_HOME/reports: `dasd report --open` shows it. Figure 6 is of the teacher's candidates, all questions "
        "pooled; `answer_provenance` has it of the checkpoints' own answers.",
    )
    def distillation_report(
        context: dg.AssetExecutionContext, warehouse: Warehouse, engines: Engines
    ) -> dg.MaterializeResult:
        existing = usable_batches(context.instance, warehouse)
        read = declared.read_tags(context.instance, existing)
        data = find(warehouse, engines, recipe, existing)
        figures = pictures(data)
        folder = report_folder(warehouse, recipe)
        files = write(data, figures, recipe, folder)
        return dg.MaterializeResult(
            tags=read,
            metadata={
                "report": dg.MetadataValue.path(str(folder / PAGE)),
                "accuracies": accuracy_table(data.accuracies),
                "drops": drop_table(data.drops),
                **{name: inline(figure) for name, figure in figures.items()},
                **{name: tidy(value) for name, value in figures_over_time(data).items()},
                "folder": dg.MetadataValue.path(str(folder)),
                **{f"{name}_file": dg.MetadataValue.path(str(file)) for name, file in files.items()},
                **declared.code_version.metadata,
            },
        )

    return [distillation_report]


def _declared(recipe: Recipe) -> Declaration:
    """The report reads every stage of the pipeline."""
    generations = list(map(generation_asset, recipe.datasets))
    selections = map(selection_asset, recipe.datasets)
    return declare(
        recipe,
        "distillation_report",
        reads={
            "responses": generations,
            "prompts": "prompts",
            "response_verdicts": "response_verdicts",
            "sentence_types": "sentence_types",
            "selected_responses": [*selections, CONTROL_ASSET],
            **chain_reads(recipe),
            "student_rollouts": "student_rollouts",
            "evaluation_metrics": "evaluation_metrics",
            "evaluations": "evaluations",
            "evaluation_requests": "evaluations",
            "failed_requests": "evaluations",
            "benchmark_questions": "benchmark_questions",
            "quarantined_batches": (),
        },
        looks_up={
            **{table: assets for table, assets in looked_up(recipe).items() if table != "prompts"},
            "sentence_probabilities": "sentence_probabilities",
        },
        models=["teacher_model", "student_model"],
        rules=[REPORT, METRICS, STATISTICS, CANDIDATES, FILTERING, DIVERGENCE, ROLLOUTS],
        parts=["evaluation", "training.group_by_length", "training.group_order", "mixed_policy.length_cap"],
    )
