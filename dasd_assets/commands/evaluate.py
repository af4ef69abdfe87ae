"""`dasd evaluate MODEL --benchmark NAME…`: a model from anywhere answers held-out questions, each once.

What is answered stays in `evaluations`, beside the answers of the recipes' own stages: a rerun asks what is missing.
"""

import argparse
import json
from collections.abc import Collection, Iterator

import polars as pl

from dasd_assets.commands.evaluated_benchmarks import entered, named_benchmark, recipes_of
from dasd_assets.commands.evaluated_model import checkpoint_of
from dasd_assets.commands.messages import echo
from dasd_assets.definitions import EnvironmentEngines
from dasd_assets.evaluation import Checkpoint, accuracy, ask_missing
from dasd_resources.inference.engines import Engines
from dasd_resources.recipe import Recipe, load_recipe
from dasd_resources.storage.warehouse import Row, Warehouse
from dasd_resources.visible_text import show

ORIGIN = json.dumps({"command": "evaluate"})
FAILED = 1  # exit code: a request failed, and the same command asks it again
GROUP = ["benchmark", "temperature"]
GIVEN = {"samples": "samples_per_question", "temperature": "temperatures", "top_p": "top_p"}


def command(args: argparse.Namespace) -> int:
    """Ask what is missing, then print how good the answers are."""
    recipe = load_recipe(args.recipe or args.default_recipe, args.home)
    args.home.mkdir(parents=True, exist_ok=True)
    results = evaluate(Warehouse(home=str(args.home)), EnvironmentEngines(home=str(args.home)), recipe, args)
    show(json.dumps(results, indent=2) if args.json else "\n".join(map(_line, results)))
    return FAILED if any(result["num_failed"] for result in results) else 0


def evaluate(warehouse: Warehouse, engines: Engines, recipe: Recipe, args: argparse.Namespace) -> list[Row]:
    """One row per benchmark and temperature. Raises RecipeError before anything is asked."""
    named = [named_benchmark(recipe, text, args.max_tokens) for text in args.benchmark]
    instead = {key: getattr(args, name) for name, key in GIVEN.items() if getattr(args, name) is not None}
    recipes_of(recipe, named, instead)
    checkpoint = checkpoint_of(warehouse, engines, recipe, args.model, ORIGIN)
    stored = [entered(warehouse, recipe, one, ORIGIN) for one in named]
    return [
        row for asking in recipes_of(recipe, stored, instead) for row in _asked(warehouse, engines, asking, checkpoint)
    ]


def _asked(warehouse: Warehouse, engines: Engines, recipe: Recipe, checkpoint: Checkpoint) -> Iterator[Row]:
    asked = ask_missing(warehouse, engines, recipe, [checkpoint], origin=ORIGIN, say=echo, warn=echo)
    answers = _with_failed(warehouse, recipe, asked.ids)
    counts = answers.group_by(GROUP).agg(
        num_failed=pl.col("correct").is_null().sum(), num_cut_off=(pl.col("finish_reason") == "length").sum()
    )
    scores = accuracy(answers.with_columns(pl.col("correct").fill_null(False)), GROUP).join(counts, on=GROUP)
    limits = {benchmark.name: benchmark.max_tokens for benchmark in recipe.evaluation.benchmarks}
    for row in scores.to_dicts():
        yield {
            "checkpoint_id": checkpoint.checkpoint_id,
            "model": checkpoint.name,
            **row,
            "samples_per_question": recipe.evaluation.samples_per_question,
            "top_p": recipe.evaluation.top_p,
            "max_tokens": limits[row["benchmark"]],
        }


def _with_failed(warehouse: Warehouse, recipe: Recipe, ids: Collection[str]) -> pl.DataFrame:
    """(benchmark, temperature, question_id, correct, finish_reason) of every wanted answer; NULL where it failed."""
    query = """SELECT benchmark, question_id, temperature, sample_index, correct, finish_reason
        FROM benchmark_questions CROSS JOIN (SELECT unnest($temperatures::DOUBLE[]) AS temperature)
            CROSS JOIN (SELECT unnest(range($samples)) AS sample_index)
            LEFT JOIN (FROM evaluations WHERE evaluation_id IN (SELECT unnest($ids::VARCHAR[])))
                USING (benchmark, question_id, temperature, sample_index)
        WHERE list_contains($names, benchmark)"""
    params = {
        "temperatures": list(recipe.evaluation.temperatures),
        "samples": recipe.evaluation.samples_per_question,
        "ids": list(ids),
        "names": [benchmark.name for benchmark in recipe.evaluation.benchmarks],
    }
    return warehouse.read(query, params)


def _line(row: Row) -> str:
    error = "" if row["standard_error"] is None else f" ± {row['standard_error']:.3f}"
    return (
        f"{row['model']}  {row['benchmark']}, T={row['temperature']:<4g} avg@{row['samples_per_question']} "
        f"{row['accuracy']:.3f}{error}  ({row['num_questions']} questions, {row['num_answers']} answers, "
        f"{row['num_cut_off']} cut off, {row['num_failed']} failed)"
    )
