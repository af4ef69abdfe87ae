"""What `dasd evaluate --benchmark` names -> held-out questions, and how they are asked unless it is said.

A benchmark of the recipe (`aime25`), a layout and its file (`aime25=aime25.parquet`), or a task of reasoning-gym
(`reasoning_gym:chain_sum,num_questions=50,seed=1,min_terms=2`).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import polars as pl
import yaml

from dasd_assets.evaluation.questions import benchmark_version, question_rows
from dasd_resources.benchmarks.layouts import LAYOUTS, SAMPLES_PER_QUESTION, TEMPERATURE, TOP_P
from dasd_resources.content_hash import content_hash
from dasd_resources.recipe import Benchmark, Evaluation, Recipe, RecipeError, Task
from dasd_resources.recipe.faults import checked
from dasd_resources.storage.warehouse import Row, Warehouse

TASK = "reasoning_gym:"
NUM_QUESTIONS = 100  # of a task, unless it is said


@dataclass(frozen=True)
class Sampling:
    """How often, and how, each question is asked."""

    temperatures: tuple[float, ...]
    top_p: float
    samples: int


@dataclass(frozen=True)
class Named:
    """A benchmark as the command line names it; `rows` are its `benchmark_questions`."""

    benchmark: Benchmark
    sampling: Sampling
    rows: list[Row]


def named_benchmark(recipe: Recipe, text: str, max_tokens: int | None) -> Named:
    """The benchmark that `text` names. max_tokens: instead of its own. Raises RecipeError."""
    own = recipe.evaluation
    of_recipe = Sampling(own.temperatures, own.top_p, own.samples_per_question)
    known = {benchmark.name: benchmark for benchmark in own.benchmarks}
    layout, equals, path = text.partition("=")
    if text in known:
        benchmark, sampling = known[text], of_recipe
    elif text.startswith(TASK):
        benchmark, sampling = _of_task(text, recipe), of_recipe
    elif equals and layout in LAYOUTS:
        benchmark = Benchmark.model_validate({"name": layout, "layout": layout, "path": str(Path(path).resolve())})
        sampling = Sampling((TEMPERATURE,), TOP_P, SAMPLES_PER_QUESTION)
    else:
        raise RecipeError(
            f"--benchmark {text}: no benchmark of recipe {recipe.name} ({', '.join(known)}), no layout with its file "
            f"({', '.join(f'{name}=FILE' for name in LAYOUTS)}), no task ({TASK}DATASET)"
        )
    if max_tokens is not None:
        benchmark = benchmark.model_copy(update={"max_tokens": max_tokens})
    return Named(benchmark, sampling, question_rows(benchmark))


def _of_task(text: str, recipe: Recipe) -> Benchmark:
    dataset, *options = text.removeprefix(TASK).split(",")
    given: dict[str, object] = {}
    for option in options:
        key, equals, value = option.partition("=")
        if not equals:
            raise RecipeError(f"--benchmark {text}: {option!r} must be an option and its value, as in seed=1")
        try:
            given[key] = yaml.safe_load(value)
        except yaml.YAMLError:
            raise RecipeError(f"--benchmark {text}: {option!r}: the value is no YAML") from None
    own = {key: given.pop(key, default) for key, default in {"num_questions": NUM_QUESTIONS, "seed": 0}.items()}
    task = checked(Task, {"dataset": dataset, **own, "config": given}, f"--benchmark {text}")
    name = f"{dataset}-{content_hash(task.model_dump())[:6]}"
    return Benchmark(name=name, task=task, max_tokens=recipe.generation.max_tokens)


def entered(warehouse: Warehouse, recipe: Recipe, named: Named, origin: str) -> Named:
    """The same with its questions stored, under a name that no other questions have.

    A benchmark of the recipe is stored as its asset stores it. Another one never takes a name from questions that are
    there, for answers to them would then count no more: it gets a name of its own.
    """
    of_recipe = named.benchmark in _asked_as(recipe, named.benchmark.max_tokens)
    with warehouse.commit(origin) as transaction:
        stored = transaction.read("SELECT * FROM benchmark_questions ORDER BY benchmark, source_line").to_dicts()
        taken = {row["benchmark"] for row in stored} | {b.name for b in recipe.evaluation.benchmarks}
        wanted = benchmark_version(named.rows)
        present = benchmark_version([row for row in stored if row["benchmark"] == named.benchmark.name])
        if present != wanted and not of_recipe and named.benchmark.name in taken:
            named = _renamed(named, wanted[:6])
            present = benchmark_version([row for row in stored if row["benchmark"] == named.benchmark.name])
        if present != benchmark_version(named.rows):
            key = {"benchmark": named.benchmark.name}
            transaction.replace("benchmark_questions", key, pl.DataFrame(named.rows, infer_schema_length=None))
    return named


def _asked_as(recipe: Recipe, max_tokens: int) -> list[Benchmark]:
    return [benchmark.model_copy(update={"max_tokens": max_tokens}) for benchmark in recipe.evaluation.benchmarks]


def _renamed(named: Named, suffix: str) -> Named:
    name = f"{named.benchmark.name}-{suffix}"
    benchmark = named.benchmark.model_copy(update={"name": name})
    return Named(benchmark, named.sampling, [{**row, "benchmark": name} for row in named.rows])


def recipes_of(recipe: Recipe, named: list[Named], instead: Mapping[str, object]) -> list[Recipe]:
    """The recipe with these benchmarks as its own: one for all that are asked in the same way.

    instead: keys of `evaluation` whose values the command line gives.
    """
    groups: dict[Sampling, list[Benchmark]] = {}
    for one in named:
        groups.setdefault(one.sampling, []).append(one.benchmark)
    own = (
        checked(Evaluation, {**_keys(how), **instead, "benchmarks": of}, "dasd evaluate") for how, of in groups.items()
    )
    return [recipe.model_copy(update={"evaluation": evaluation}) for evaluation in own]


def _keys(sampling: Sampling) -> dict[str, object]:
    return {
        "temperatures": sampling.temperatures,
        "top_p": sampling.top_p,
        "samples_per_question": sampling.samples,
    }
