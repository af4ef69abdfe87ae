"""Divergence-aware sampling (report §4): keep the responses richest in what the teacher knows and the student does not.

`response_scores` and `response_verdicts` of all batches -> `selected_responses`, policy `das`, one asset per
temperature, by the rules of `rules/pool.py` and `rules/selection.py`. Its random control is `random_responses`.
"""

from dataclasses import dataclass

import dagster as dg
import polars as pl

from dasd_assets.records.declaration import declare
from dasd_assets.records.empty_datasets import record_empty
from dasd_assets.records.plots import histogram, inline, shape
from dasd_assets.records.provenance import content_version, origin
from dasd_assets.records.quarantine import usable_batches
from dasd_assets.records.selection_rules import record_rule, selection_rule
from dasd_assets.records.table_metadata import Figure, audited
from dasd_assets.records.wording import listed, short
from dasd_assets.rules.asset_names import DAS, generation_asset, selection_asset
from dasd_assets.rules.candidates import AT_TEMPERATURE, HELD_OUT, OF_BATCHES, OF_RECIPE, drop_counts
from dasd_assets.rules.empty_datasets import empty_selection
from dasd_assets.rules.filters.catalogue import FILTERS
from dasd_assets.rules.ids import selection_id
from dasd_assets.rules.pool import create_pool_table, pool_params
from dasd_assets.rules.selection import SELECTION, competition, select, selection_version
from dasd_assets.rules.thinking import advice, dropped_by_structure
from dasd_resources.inference.engines import Engines
from dasd_resources.recipe import Recipe, Thinking
from dasd_resources.storage.warehouse import Reading, Row, Warehouse

PLOTTED = 100_000  # scores of the pool in its histogram


def selected_rows(selected: pl.DataFrame, recipe: Recipe, dataset: str, policy: str) -> pl.DataFrame:
    """Rows of `selected_responses`: the selected responses with score, threshold and version of the rule."""
    return selected.select(
        "response_id",
        "prompt_id",
        "domain",
        "rank",
        "score",
        recipe=pl.lit(recipe.name),
        dataset=pl.lit(dataset),
        policy=pl.lit(policy),
        score_name=pl.lit(recipe.selection.score),
        threshold=pl.lit(recipe.selection.divergence.threshold),
        selection_version=pl.lit(selection_version(recipe)),
        selection_id=pl.lit(selection_id(dataset, policy, selection_version(recipe), selected["response_id"])),
        selected_by=pl.lit(None, pl.String),
    )


def build(recipe: Recipe) -> list[dg.AssetsDefinition]:
    """`selected_responses_…`, one per temperature; `selection_source` has them where another recipe selects."""
    if recipe.selection_from is not None:
        return []
    return [_selection(recipe, dataset) for dataset in recipe.datasets]


def _selection(recipe: Recipe, dataset: str) -> dg.AssetsDefinition:
    of_dataset = f"dataset = '{dataset}' AND policy = '{DAS}'"
    declared = declare(
        recipe,
        selection_asset(dataset),
        ["selected_responses", "selection_rules", "empty_datasets"],
        reads={
            "response_scores": "response_scores",
            "response_verdicts": "response_verdicts",
            "prompts": "prompts",  # a withdrawal changes the pool and nothing in between
            "quarantined_batches": (),
        },
        looks_up={"responses": generation_asset(dataset), **looked_up_for_cost(recipe)},
        models=["teacher_model", "student_model"],
        rules=[SELECTION],
        parts=[
            *("name", "seed", "generation.temperatures"),
            *("generation.questions_per_domain", "generation.question_order"),  # stored in its rule
        ],
        rows=of_dataset,
    )

    @declared.asset(
        group="selection",
        kinds={"ducklake", "polars"},
        description=f"One row per response of {dataset} that divergence-aware sampling keeps, with rank and score.",
    )
    def selected_responses(
        context: dg.AssetExecutionContext, warehouse: Warehouse, engines: Engines
    ) -> dg.MaterializeResult:
        existing = usable_batches(context.instance, warehouse)
        read = declared.read_tags(context.instance, existing)
        teacher = engines.fingerprint(recipe.teacher, "teacher.model")
        student = engines.fingerprint(recipe.student, "student.model")
        params = pool_params(recipe, teacher, student, dataset, existing)
        selected, pool = select_from_pool(warehouse, recipe, dataset, params)
        if unused := unused_budgets(recipe, dataset, pool):
            context.log.warning(_warning(dataset, unused, pool))
        empty = why_empty(warehouse, recipe, dataset, params) if selected.is_empty() else None
        record_empty(context, warehouse, recipe, dataset, empty)
        write_selection(context, warehouse, recipe, dataset, DAS, selected)
        record_rule(context, warehouse, recipe, dataset, selection_rule(recipe, dataset, params, pool.domain_means))
        figures = _figures(recipe, selected, pool)
        rows = {"recipe": recipe.name, "dataset": dataset, "policy": DAS}
        audit = selection_audit(warehouse, recipe, of_dataset)
        return dg.MaterializeResult(
            data_version=ranks_version(selected),
            tags=read,
            metadata=declared.result(
                warehouse,
                selected.height,
                rows,
                domains_without_responses=", ".join(unused) or None,
                empty=str(empty["reason"]) if empty else None,
                **figures,
                **audit,
            ),
        )

    return selected_responses


def ranks_version(selected: pl.DataFrame) -> dg.DataVersion:
    """Of which responses at which ranks: a question is rolled out by its best. selected: response_id, rank."""
    return content_version(selected.select("response_id", "rank").iter_rows())


@dataclass(frozen=True)
class PoolSummary:
    """What the pool of a dataset held: counts, its domains, and up to PLOTTED of its scores.

    domain_means: of `create_pool_table`.
    """

    num_candidates: int
    mean_score: float | None
    domains: list[str]
    scores: list[float]
    domain_means: dict[str, float]


def select_from_pool(
    warehouse: Warehouse, recipe: Recipe, dataset: str, params: dict[str, object]
) -> tuple[pl.DataFrame, PoolSummary]:
    """The rows selected for a dataset, see `select`, and a summary of the pool. params: of `pool_params`."""
    with warehouse.reading() as reading, reading.all_cores():
        means = create_pool_table(reading, params)
        selected = select(reading, competition(recipe), recipe.selection.budgets.get(dataset, {}))
        number, mean = reading.read("SELECT count(*), avg(score) FROM pool").row(0)
        domains = reading.read("SELECT DISTINCT domain FROM pool ORDER BY domain")["domain"].to_list()
        sample = reading.read(f"SELECT score FROM (SELECT score FROM pool LIMIT {PLOTTED}) WHERE score IS NOT NULL")
    return selected, PoolSummary(number, mean, domains, sample["score"].to_list(), means)


def looked_up_for_cost(recipe: Recipe) -> dict[str, str]:
    """The table that a budget of tokens reads, and its asset."""
    return {"student_tokens": "student_tokens"} if recipe.selection.budget_unit == "tokens" else {}


def unused_budgets(recipe: Recipe, dataset: str, pool: PoolSummary) -> list[str]:
    """The domains that have a budget but no response in the pool: misspelt, perhaps."""
    return sorted(set(recipe.selection.budgets.get(dataset, {})) - set(pool.domains))


def _warning(dataset: str, unused: list[str], pool: PoolSummary) -> str:
    return (
        f"selection.budgets.{dataset} names {', '.join(unused)}, but no response is of that domain; the domains are "
        f"{listed(list(map(short, pool.domains)))}, and all responses of a domain without a budget are kept"
    )


def _figures(recipe: Recipe, selected: pl.DataFrame, pool: PoolSummary) -> dict[str, Figure]:
    """Figures of a selection: counts, mean scores, and the scores of the pool and of what was selected of it."""
    score, scores = recipe.selection.score, selected["score"]
    return {
        "num_questions": selected["prompt_id"].n_unique(),
        "mean_score": selected.select(pl.mean("score")).item(),
        "num_candidates": pool.num_candidates,
        "mean_score_of_pool": pool.mean_score,
        "scores_shape": shape(scores.drop_nulls().to_list()),
        "scores": inline(histogram({"pool": pool.scores, "selected": scores.to_list()}, score)),
    }


def selection_audit(warehouse: Warehouse, recipe: Recipe, where: str) -> dict[str, Figure]:
    """Metadata for an audit of a selection's rows. where: the SQL condition of these among the recipe's rows."""
    query = f"SELECT * FROM selected_responses WHERE recipe = '{recipe.name}' AND {where}"
    return audited("response RESPONSE_ID", query, warehouse.snapshot_id())


def why_empty(warehouse: Warehouse, recipe: Recipe, dataset: str, params: dict[str, object]) -> Row:
    """The `empty_datasets` row of a dataset of which nothing was selected."""
    query = f"SELECT count(*) FROM responses r WHERE {OF_RECIPE} AND {AT_TEMPERATURE} AND {OF_BATCHES}"
    number = int(warehouse.read(query, params).item())
    left_none = _left_none(warehouse, recipe, dataset, params)
    drops = _drops(warehouse, params, recipe.teacher.thinking)
    return empty_selection(recipe.name, dataset, number, "; ".join(filter(None, (left_none, drops))))


def _left_none(warehouse: Warehouse, recipe: Recipe, dataset: str, params: dict[str, object]) -> str:
    """The recipe's key that left none of the scored responses, in words; empty where filters alone did."""
    every = {**params, "held_out_share": 0.0, "min_sentences": 0, "only_accepted": False}
    with warehouse.reading() as reading, reading.all_cores():
        create_pool_table(reading, every)
        scored, trained_on, accepted, long = reading.read(_NUM_LEFT, params).row(0)
        create_pool_table(reading, params)
        competing = reading.read(f"SELECT count(*) FROM ({competition(recipe).rows('pool')})").item()
    best = "the best response"
    steps = [
        (trained_on, f"all questions of the {scored:,} scored ones are held out: lower heldout.questions"),
        (accepted, ""),
        (long, f"the {accepted:,} accepted ones have fewer sentences than selection.min_sentences: lower that"),
        (competing, f"filters drop {best} of every question: write filters.apply: before_selection"),
        (0, f"{best} of every domain has more tokens than its budget: raise selection.budgets.{dataset}"),
    ]
    return next(told for number, told in steps if not number) if scored else ""


_NUM_LEFT = f"""SELECT count(*), count(*) FILTER (trained_on), count(*) FILTER (trained_on AND accepted),
        count(*) FILTER (trained_on AND accepted AND num_sentences >= $min_sentences)
    FROM (SELECT *, NOT {HELD_OUT} AS trained_on FROM pool r WHERE key IS NOT NULL)"""


def _drops(warehouse: Warehouse, params: dict[str, object], thinking: Thinking) -> str:
    """Why nothing is left: how many responses each filter dropped, and the recipe's key where that explains it."""
    params = {**params, "temperatures": [params["temperature"]]}
    counts = drop_counts(warehouse, params, FILTERS)
    listed = ", ".join(
        f"{row['filter']} dropped {row['num_dropped']} of {row['num_judged']}" for row in counts.to_dicts()
    )
    advised = advice(dropped_by_structure(warehouse, params), thinking)
    return (
        "; ".join(filter(None, (listed, advised))) or "there are no responses: are there prompts in the landing folder?"
    )


def write_selection(
    context: dg.AssetExecutionContext,
    warehouse: Warehouse,
    recipe: Recipe,
    dataset: str,
    policy: str,
    selected: pl.DataFrame,
) -> None:
    """Replace this recipe's rows of a dataset and policy by those selected."""
    write_rows(context, warehouse, recipe, dataset, policy, selected_rows(selected, recipe, dataset, policy))


def write_rows(
    context: dg.AssetExecutionContext,
    warehouse: Warehouse,
    recipe: Recipe,
    dataset: str,
    policy: str,
    rows: pl.DataFrame,
) -> None:
    """Replace this recipe's rows of a dataset and policy; unchanged ones, rank and score included, make no commit."""
    key = {"recipe": recipe.name, "dataset": dataset, "policy": policy}
    if not stored_alike(warehouse, key, rows):
        with warehouse.commit(origin(context)) as transaction:
            transaction.replace("selected_responses", key, rows)


def stored_alike(warehouse: Warehouse | Reading, key: dict[str, str], rows: pl.DataFrame) -> bool:
    """Whether `selected_responses` has just these rows. key: recipe, dataset and policy."""
    query = f"""SELECT {", ".join(rows.columns)} FROM selected_responses
        WHERE recipe = $recipe AND dataset = $dataset AND policy = $policy ORDER BY response_id"""
    return warehouse.read(query, key).equals(rows.sort("response_id"))
