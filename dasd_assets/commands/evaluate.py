"""`dasd evaluate MODEL --benchmark NAME…`: a model from anywhere answers held-out questions, each once.

What is answered stays in `evaluations`, beside the answers of the recipes' own stages: a rerun asks what is missing.
"""

import argparse
import json
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

import dagster as dg
import polars as pl

from dasd_assets.commands.console import console
from dasd_assets.commands.engine_slot import with_engine
from dasd_assets.commands.evaluated_benchmarks import entered, named_benchmark, recipes_of
from dasd_assets.commands.evaluated_model import checkpoint_of, require_room
from dasd_assets.commands.messages import echo
from dasd_assets.definitions import EnvironmentEngines, build_definitions
from dasd_assets.evaluation.accuracy import accuracy
from dasd_assets.evaluation.answers import Checkpoint, ask_missing
from dasd_assets.evaluation.evaluation_metrics import shown_figure, store_metrics
from dasd_assets.evaluation.outcomes import outcomes
from dasd_assets.service.in_process import execute
from dasd_assets.service.instance import open_instance
from dasd_resources.home import prepare_home
from dasd_resources.inference.engine_catalogue import ENGINES
from dasd_resources.inference.engines import Engines
from dasd_resources.recipe import Recipe, load_recipe
from dasd_resources.storage.warehouse import Row, Warehouse
from dasd_resources.visible_text import show

NAME = "evaluate_model"  # of its runs in the web UI
ORIGIN = json.dumps({"command": "evaluate"})
FAILED = 1  # exit code: a request failed, or no server took it, and the same command asks it again
GROUP = ["benchmark", "temperature"]
FIGURE = ["value", "standard_error", "num_questions"]
GIVEN = {"samples": "samples_per_question", "temperature": "temperatures", "top_p": "top_p"}


def command(args: argparse.Namespace) -> int:
    """Ask what is missing, print how good the answers are, and rank the model among all of the home."""
    home = args.home
    recipe = load_recipe(args.recipe or args.default_recipe, home)
    dagster_home = prepare_home(home, args.dagster_home)
    with open_instance(dagster_home) as instance:
        results = evaluate(
            Warehouse(home=str(home)),
            EnvironmentEngines(home=str(home)),
            recipe,
            args,
            lambda ask, loads_here: with_engine(instance, home, NAME, ask, echo, loads_here=loads_here),
        )
        show(json.dumps(results, indent=2) if args.json else "\n".join(map(shown, results)))
        rank(instance, recipe, home)
    return FAILED if any(result["num_failed"] or result["num_missing"] for result in results) else 0


def rank(instance: dg.DagsterInstance, recipe: Recipe, home: Path) -> None:
    """Materialize the leaderboard: it depends on no asset that knows of what was asked here."""
    loggers = dg.Definitions(loggers={"console": console})
    definitions = dg.Definitions.merge(build_definitions(recipe, home, compared=[]), loggers)
    execute(instance, definitions, ["leaderboard"], None, home)


def evaluate(
    warehouse: Warehouse,
    engines: Engines,
    recipe: Recipe,
    args: argparse.Namespace,
    as_run: Callable[[Callable[[], list[Row]], bool], list[Row]],
) -> list[Row]:
    """One row per benchmark and temperature. Raises RecipeError before anything is asked.

    as_run: calls what asks the model; if that loads it here, and the second argument says so, when no other is loaded.
    """
    named = [named_benchmark(recipe, text, args.max_tokens) for text in args.benchmark]
    instead = {key: getattr(args, name) for name, key in GIVEN.items() if getattr(args, name) is not None}
    recipes_of(recipe, named, instead)
    checkpoint = checkpoint_of(warehouse, engines, recipe, args.model, ORIGIN)
    require_room(engines, checkpoint, named)
    stored = [entered(warehouse, recipe, one, ORIGIN) for one in named]
    asked = recipes_of(recipe, stored, instead)
    loads_here = not ENGINES[checkpoint.spec.engine].served
    return as_run(
        lambda: [row for asking in asked for row in _asked(warehouse, engines, asking, checkpoint)], loads_here
    )


def _asked(warehouse: Warehouse, engines: Engines, recipe: Recipe, checkpoint: Checkpoint) -> Iterator[Row]:
    ask_missing(warehouse, engines, recipe, [checkpoint], origin=ORIGIN, say=echo, warn=echo)
    stored = store_metrics(warehouse, recipe, [checkpoint.checkpoint_id], origin=ORIGIN, say=echo)
    figures = defaultdict[tuple[str, float], dict[str, Row]](dict)
    for figure in stored.to_dicts():
        setting = figure["benchmark"], figure["temperature"]
        figures[setting][figure["metric"]] = {name: figure[name] for name in FIGURE}
    answers = outcomes(warehouse, recipe, [checkpoint.checkpoint_id], unasked=True)  # no server may have taken any
    cut_off = answers.group_by(GROUP).agg(num_cut_off=pl.col("cut_off").sum())
    scores = accuracy(answers, GROUP).join(cut_off, on=GROUP, maintain_order="left")
    limits = {benchmark.name: benchmark.max_tokens for benchmark in recipe.evaluation.benchmarks}
    for row in scores.to_dicts():
        yield {
            "checkpoint_id": checkpoint.checkpoint_id,
            "model": checkpoint.name,
            **row,
            "samples_per_question": recipe.evaluation.samples_per_question,
            "top_p": recipe.evaluation.top_p,
            "max_tokens": limits[row["benchmark"]],
            "metrics": figures[row["benchmark"], row["temperature"]],
        }


def shown(row: Row) -> str:
    """The accuracy and the counts; below, unless it is incomplete, the other figures."""
    figures = {
        name: shown_figure({"metric": name, "num_missing": 0, **figure}) for name, figure in row["metrics"].items()
    }
    accuracy = "is incomplete" if row["num_missing"] else figures.pop(f"avg@{row['samples_per_question']}")
    first = (
        f"{row['model']}  {row['benchmark']}, T={row['temperature']:<4g} avg@{row['samples_per_question']} "
        f"{accuracy}  ({row['num_questions']} questions, {row['num_answers']} answers, "
        f"{row['num_cut_off']} cut off, {row['num_failed']} failed, {row['num_missing']} not asked yet)"
    )
    others = ", ".join(f"{name.replace('_', ' ')} {figure}" for name, figure in figures.items())
    return first if row["num_missing"] else f"{first}\n  {others}"
