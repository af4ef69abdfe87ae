"""Under every rule of selection, the audit's reasons are what selection did, response by response."""

import json

import polars as pl
import pytest
from conftest import Project, changed

from dasd_assets.audit.ranking import selections
from dasd_assets.audit.verify.datasets import ranks
from dasd_assets.records.selection_rules import selection_rule
from dasd_assets.selection import select_from_pool, selected_rows
from dasd_resources.recipe import Recipe

DATASET = "t100"
RULES: list[tuple[dict[str, object], set[str]]] = [  # settings by dotted path, and kinds that must occur
    ({"selection.budgets": {DATASET: {"math": 2}}}, {"not_best_of_question", "beyond_budget"}),
    ({"selection.policy": "top_k", "selection.budgets": {DATASET: {"math": 3, "sums": 2}}}, {"beyond_budget"}),
    ({"selection.policy": "top_k", "selection.max_per_question": 1}, {"question_full"}),
    ({"selection.budget_unit": "tokens", "selection.budgets": {DATASET: {"math": 400}}}, {"beyond_budget"}),
    ({"selection.pseudo_count": 3.0, "selection.budgets": {DATASET: {"math": 2}}}, {"not_best_of_question"}),
    ({"selection.min_sentences": 1_000}, {"too_few_sentences"}),
    ({"heldout.questions": 0.3}, {"question_held_out", "not_best_of_question"}),
    ({"heldout.questions": 0.3, "selection.budgets": {DATASET: {"math": 2}}}, {"question_held_out", "beyond_budget"}),
    ({"filters.apply": "after_selection", "selection.budgets": {DATASET: {"math": 2}}}, {"filtered"}),
    ({"filters.apply": "after_selection", "selection.policy": "top_k"}, {"filtered"}),
]


@pytest.mark.parametrize(("settings", "kinds"), RULES)
def test_every_response_is_explained_as_it_was_selected(
    copy: Project, settings: dict[str, object], kinds: set[str]
) -> None:
    recipe = changed(copy.recipe, settings)
    chosen = select_anew(copy, recipe)
    query = "SELECT * FROM responses WHERE temperature = 1.0"
    found = set()
    with copy.warehouse.reading() as reading:
        assert list(ranks(reading)) == []
        verdicts = reading.read("FROM response_verdicts").to_dicts()
        domains = dict(reading.read("SELECT prompt_id, domain FROM prompts").iter_rows())
        for response in reading.read(query).to_dicts():
            its = [verdict for verdict in verdicts if verdict["response_id"] == response["response_id"]]
            rows = selections(reading, response, its, domains[response["prompt_id"]])
            [row] = [row for row in rows if (row["dataset"], row["policy"]) == (DATASET, "das")]
            assert row["chosen"] == (response["response_id"] in chosen)
            assert row["kind"] != "pending", row
            found.add(row["kind"])
    assert kinds <= found


def select_anew(project: Project, recipe: Recipe) -> set[str]:
    """Select by a recipe over the project's tables, and store rows and rule; returns the ids selected."""
    params = project.pool_params(recipe, DATASET)
    selected, pool = select_from_pool(project.warehouse, recipe, DATASET, params)
    rule = json.dumps(selection_rule(recipe, DATASET, params, pool.domain_means))
    key = {"recipe": recipe.name, "dataset": DATASET}
    with project.warehouse.commit("a test") as transaction:
        row = transaction.read("FROM selection_rules WHERE recipe = $recipe AND dataset = $dataset", key)
        transaction.replace("selection_rules", key, row.with_columns(rule=pl.lit(rule)))
        rows = selected_rows(selected, recipe, DATASET, "das")
        transaction.replace("selected_responses", {**key, "policy": "das"}, rows)
    return set(selected["response_id"])
