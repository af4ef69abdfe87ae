"""The selection of another recipe, where this one is told to train on it (`selection_from`): which it is, and its rows.

A set that was selected for one student is used for another (report §7: a larger one). All is read from the tables of
the home, in which both recipes are: what the other recipe's file says by now does not count.
"""

import json
from collections.abc import Mapping
from typing import Any

from dasd_assets.rules.asset_names import DAS, RANDOM
from dasd_assets.rules.candidates import HELD_OUT, OF_BATCHES
from dasd_assets.rules.instructions import stored_instructions
from dasd_assets.rules.rule import Rule
from dasd_resources.content_hash import content_hash
from dasd_resources.recipe import Recipe
from dasd_resources.storage.lake import Lake

SOURCE_VERSION = "1"
SELECTION_SOURCE = Rule("selection source", SOURCE_VERSION, ("name", "selection_from"))
# What decides, with the teacher, that both recipes mean the same responses: its name in `selection_rules`, in a recipe.
SAMPLING = {
    "top_p": "generation.top_p",
    "max_tokens": "generation.max_tokens",
    "num_candidates": "generation.num_candidates",
    "instructions": "generation.instructions",
    "questions_per_domain": "generation.questions_per_domain",
    "question_order": "generation.question_order",
}
_EVERY_QUESTION: Mapping[str, Any] = {"questions_per_domain": {}, "question_order": {}}  # of an earlier release


def source_version(lake: Lake, recipe: Recipe) -> str:
    """Changes with every change of what a recipe takes from the one it names; a few values are read, not its rows.

    The other's mixed-policy dataset, its other temperatures and what its experiments have chosen are not taken.
    """
    query = """SELECT DISTINCT dataset, policy, selection_id, run_id FROM selected_responses
        WHERE recipe = $source AND list_contains($datasets::VARCHAR[], dataset)
          AND list_contains($policies::VARCHAR[], policy) ORDER BY ALL"""
    params = {"source": recipe.selection_from, "datasets": list(recipe.datasets), "policies": [DAS, RANDOM]}
    return content_hash([SOURCE_VERSION, lake.read(query, params).rows()])[:16]


def source_rules(lake: Lake, source: str) -> dict[str, Mapping[str, Any]]:
    """Dataset -> the rule by which a recipe selected it, of those of a temperature."""
    rows = lake.read("SELECT dataset, rule FROM selection_rules WHERE recipe = $recipe", {"recipe": source})
    rules = {dataset: json.loads(rule) for dataset, rule in rows.iter_rows()}
    return {dataset: rule for dataset, rule in rules.items() if "drawn_from" not in rule}


def source_fault(lake: Lake, recipe: Recipe, teacher: str) -> str | None:
    """Why a recipe cannot be trained on the selection that it names, in one sentence; None if it can.

    teacher: the fingerprint of its own.
    """
    source = str(recipe.selection_from)
    rules = source_rules(lake, source)
    if not rules:
        others = lake.read("SELECT DISTINCT recipe FROM selection_rules ORDER BY recipe")["recipe"].to_list()
        there = f"there are selections of {', '.join(others)}" if others else "no recipe has selected anything"
        return f"selection_from: recipe {source} has selected nothing in this home ({there}); run it, or name another"
    if absent := sorted(set(recipe.datasets) - set(rules)):
        return (
            f"selection_from: recipe {source} has selected {', '.join(sorted(rules))} and not {', '.join(absent)}; "
            "generation.temperatures may name only temperatures of it"
        )
    own = {"teacher": teacher} | {path: getattr(recipe.generation, name) for name, path in SAMPLING.items()}
    for dataset in recipe.datasets:
        rule = {**_EVERY_QUESTION, **rules[dataset], "instructions": stored_instructions(rules[dataset])}
        theirs = {"teacher": rule["teacher"]} | {path: rule[name] for name, path in SAMPLING.items()}
        for path, value in own.items():
            if theirs[path] != value:
                return (
                    f"selection_from: recipe {source} has selected {dataset} from responses of {path} {theirs[path]}, "
                    f"and this recipe has {value}; make them equal"
                )
    return None


# The rows of another recipe's selection, each with what may keep it from this student: its question or batch is gone;
# this recipe holds its question out; the filter `length`, by this student's tokens, failed or has not judged.
CARRIED = f"""SELECT s.* EXCLUDE (run_id), r.response_id IS NOT NULL AND p.prompt_id IS NOT NULL AS present,
        v.passed AS fits, v.reason
    FROM (SELECT r.*, {HELD_OUT} AS held_out FROM selected_responses r) s
        LEFT JOIN (SELECT response_id FROM responses r WHERE {OF_BATCHES}) r USING (response_id)
        LEFT JOIN (SELECT prompt_id FROM prompts) p USING (prompt_id)
        LEFT JOIN (SELECT response_id, passed, reason FROM response_verdicts
            WHERE filter = 'length' AND filter_version = $filter_version) v USING (response_id)
    WHERE s.recipe = $source AND s.dataset = $dataset AND s.policy = $policy
    ORDER BY s.response_id"""
