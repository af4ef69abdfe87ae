"""`dasd check`: everything that a recipe needs, checked before hours are spent on a run (no table).

Each check ends in a result of its own; none stops the others. What an engine really returns is tried out: a few tokens
are sampled and scored again, and the teacher begins a few answers. A model that is loaded here has the slot of the
engine pool, as in a step. `--quick` loads no engine.
"""

import argparse
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal, ParamSpec

from dasd_assets.commands.check.batch_sizes import batch_sizes, imported_batch_sizes
from dasd_assets.commands.check.begun_answers import Begun, thinking_found
from dasd_assets.commands.check.cluster import cluster
from dasd_assets.commands.check.contexts import context
from dasd_assets.commands.check.experiments import experiments
from dasd_assets.commands.check.held_out import benchmark_questions, held_out, sandbox, verifiers
from dasd_assets.commands.check.landed import Prompts, budgets, columns, prompts_landed
from dasd_assets.commands.check.landed_responses import Found, landed_responses
from dasd_assets.commands.check.machine import disk
from dasd_assets.commands.check.models import absent, find, gpus, logprobs, template, tokenizer
from dasd_assets.commands.check.other_selection import other_selection
from dasd_assets.commands.check.outcome import CheckFailed, CheckUnknown, CheckWarning
from dasd_assets.commands.check.training import attention, launcher, memory, trackers
from dasd_assets.commands.engine_slot import with_engine
from dasd_assets.commands.messages import echo
from dasd_assets.definitions import EnvironmentEngines
from dasd_assets.rules.recipe_names import check_names
from dasd_assets.service.instance import open_instance
from dasd_resources.inference.engine_catalogue import ENGINES
from dasd_resources.inference.engines import Engines, PromptedModel
from dasd_resources.json_text import json_text
from dasd_resources.recipe import Recipe, RecipeError, load_recipe
from dasd_resources.verifiers.catalogue import preloaded, runs_programs
from dasd_resources.visible_text import show, show_message

Parameters = ParamSpec("Parameters")
Status = Literal["ok", "warning", "unknown", "failed"]
NAME = "check"  # of its runs in the web UI


@dataclass(frozen=True)
class PreflightResult:
    """The outcome of a check; `message` says what was found and, where it failed, what to do."""

    check: str
    status: Status
    message: str


Loading = Callable[[Callable[[], str]], str]  # calls what loads a model


def _here(look: Callable[[], str]) -> str:
    return look()


def command(args: argparse.Namespace) -> int:
    """Exit code 1 if a check failed, as a run would then fail too."""
    recipe = load_recipe(args.recipe or args.default_recipe, args.home)
    check_names(recipe)
    dagster_home = Path(args.dagster_home or args.home / "dagster")
    loading = _here
    with ExitStack() as stack:
        if not args.quick and dagster_home.is_dir():  # where no home is, nothing else is loaded from it
            instance = stack.enter_context(open_instance(dagster_home))
            loading = partial(with_engine, instance, args.home, NAME, say=echo)
        return int(print_checks(recipe, args.home, args.quick, args.json, loading))


def print_checks(recipe: Recipe, home: Path, quick: bool, as_json: bool = False, loading: Loading = _here) -> bool:
    """Print each result as soon as it is known, or all as JSON; returns whether a check failed."""
    results: list[PreflightResult] = []
    for result in check(recipe, home, EnvironmentEngines(home=str(home)), quick, loading):
        results.append(result)
        if not as_json:
            show_message(f"{result.status:8}{result.check:22}{result.message}")
    if as_json:
        show(json_text([asdict(result) for result in results]))
    return any(result.status == "failed" for result in results)


def check(
    recipe: Recipe, home: Path, engines: Engines, quick: bool = False, loading: Loading = _here
) -> Iterator[PreflightResult]:
    """Results in the order of the data path, each as soon as it is known."""
    models: dict[str, PromptedModel] = {}
    for role, spec in (("teacher", recipe.teacher), ("student", recipe.student)):
        yield _result(role, find, role, spec, engines, models)
        if spec.ray is not None:
            if role in models:
                yield _result(f"{role} cluster", cluster, models[role], spec.ray)
        elif spec.replicas * spec.num_gpus_each > 1:
            yield _result(f"{role} GPUs", gpus, spec)
    landed: list[Prompts] = []
    yield _result("prompts", prompts_landed, recipe, home, models.get("teacher"), landed)
    prompts = landed[0] if landed else Prompts(0, None, frozenset(), frozenset())
    if recipe.landing.columns:
        yield _result("columns", columns, recipe, home)
    if recipe.imports is not None:
        responses = Found(recipe.landing.questions_per_batch)
        yield _result("responses", landed_responses, recipe, home, models.get("teacher"), responses)
        yield _result("batches", imported_batch_sizes, responses)
    if recipe.selection_from is not None and "teacher" in models:
        yield _result("selection_from", other_selection, recipe, home, models["teacher"], models.get("student"))
    if recipe.imports is None:
        yield _result("batches", batch_sizes, recipe, prompts)
    yield _result("budgets", budgets, recipe, prompts)
    for role, model in models.items():
        yield _result(f"{role} tokenizer", tokenizer, model)
        yield _result(f"{role} template", template, model)
        if ENGINES[model.spec.engine].absent:
            yield _result(f"{role} logprobs", absent, model)
            continue
        yield _result(f"{role} context", context, recipe, role, model, prompts)
        begun: list[Begun] = []
        if not quick:
            look = partial(logprobs, recipe, role, model, prompts, engines, begun)
            load = _here if ENGINES[model.spec.engine].served else loading
            yield _result(f"{role} logprobs", load, look)
            if model.spec.scoring_server is not None:
                served = replace(model, spec=model.spec.as_scored)
                yield _result(f"{role} server", logprobs, recipe, role, served, prompts, engines, [])
        if begun:
            yield PreflightResult(f"{role} thinking", *thinking_found(begun, model.spec.thinking))
    for benchmark in recipe.evaluation.benchmarks:
        yield _result(f"benchmark {benchmark.name}", benchmark_questions, benchmark)
    if recipe.decontamination is not None and recipe.decontamination.files:
        yield _result("held-out questions", held_out, recipe)
    if preloads := {preloaded(name) for name in verifiers(recipe, prompts) if runs_programs(name)}:
        yield _result("sandbox", sandbox, recipe, preloads)
    yield _result("launcher", launcher, recipe)
    yield _result("attention", attention, recipe, models.get("student"))
    if recipe.training.report_to:
        yield _result("trackers", trackers, recipe, home)
    if recipe.experiments:
        yield _result("experiments", experiments, recipe, home)
    yield _result("training memory", memory, recipe, models.get("student"))
    yield _result("disk", disk, recipe, home, models.get("student"), prompts)


def _result(
    name: str, run: Callable[Parameters, str], *args: Parameters.args, **kwargs: Parameters.kwargs
) -> PreflightResult:
    try:
        return PreflightResult(name, "ok", run(*args, **kwargs))
    except CheckWarning as warning:
        return PreflightResult(name, "warning", str(warning))
    except CheckUnknown as unknown:
        return PreflightResult(name, "unknown", str(unknown))
    except Exception as error:  # any error of an engine, a server or a file: the other checks go on
        message = str(error) if isinstance(error, (CheckFailed, RecipeError)) else f"{type(error).__name__}: {error}"
        return PreflightResult(name, "failed", message)
